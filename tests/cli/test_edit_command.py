"""`diffusion predict` that continues from pictures: inpainting and editing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from diffusion.data import Digits

INPAINT = {"model": {"sampler": {"guidance": ["Static", "Inpaint"]}}}
REPAINT = {
    "model": {
        "sampler": {
            "step": {"class_path": "RePaint", "init_args": {"step": "DDPM", "repeats": 2}},
            "guidance": ["Static", "Inpaint"],
        }
    }
}


@pytest.fixture
def digits(run):
    """Three digits as files, as 8 bits hold them, and a mask that is white on the right."""
    images = next(Digits().batches("test"))["image"][:3]
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    (run.folder / "digits").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(run.folder / f"digits/{i}.png")
    white = np.zeros((8, 8), dtype=np.uint8)
    white[:, 4:] = 255
    Image.fromarray(white).save(run.folder / "right.png")
    run.write("inpaint.yaml", INPAINT)
    run.write("repaint.yaml", REPAINT)
    return pixels


def drawn(run, folder="run/predictions"):
    return torch.stack([read_image(str(p)) for p in sorted((run.folder / folder).glob("0*.png"))])


@pytest.mark.parametrize("overlay", ["inpaint.yaml", "repaint.yaml"])
@pytest.mark.parametrize("mask", ["right.png", "4,0,8,8"])
def test_what_is_not_white_stays_and_the_rest_is_drawn(run, fitted, digits, overlay, mask):
    run(
        *("predict", "--ckpt_path", fitted.last, "--config", overlay, "--data.samples=7"),
        *("--data.edit=digits", f"--data.mask={mask}", "--data.batch_size=4"),
    )
    images = drawn(run)
    given = digits[torch.arange(7) % 3]
    assert torch.equal(images[..., :4], given[..., :4])
    assert not torch.equal(images[..., 4:], given[..., 4:])
    assert not torch.equal(images[0], images[3])  # the same picture, other noise


def test_one_picture_is_edited_by_its_strength(run, fitted, digits):
    for strength in (0.0, 0.3, 0.9):
        run(
            *("predict", "--ckpt_path", fitted.last, "--data.samples=3"),
            *("--data.edit=digits/1.png", f"--model.sampler.strength={strength}"),
            *(f"--writer.folder=s{strength}", "--model.sampler.steps=10"),
        )
    far = [(drawn(run, f"s{s}").float() - digits[1]).abs().mean() for s in (0.0, 0.3, 0.9)]
    assert far[0] == 0
    assert 5 < far[1] < far[2]


def test_strength_and_mask_go_together(run, fitted, digits):
    run(
        *("predict", "--ckpt_path", fitted.last, "--config", "inpaint.yaml", "--data.samples=3"),
        *("--data.edit=digits", "--data.mask=0,0,8,3", "--model.sampler.strength=0.5"),
    )
    assert torch.equal(drawn(run)[:, :, 3:], digits[:, :, 3:])


def test_an_inpainter_learns_draws_and_repaints(run, digits):
    run.write("inpainter.yaml", {"model": {"network": {"class_path": "Inpainter"}}})
    run.fit("--config", "inpainter.yaml", "--samples.every_n_steps=2")
    run("test", "--ckpt_path", run.last)
    run("predict", "--ckpt_path", run.last, "--data.samples=3", "--writer.folder=free")
    assert len(drawn(run, "free")) == 3
    seen = []
    from diffusion.networks import Inpainter

    forward = Inpainter.forward

    def spy(self, x_t, t, **conditions):
        seen.append((conditions["known"], conditions["mask"]))
        return forward(self, x_t, t, **conditions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inpainter, "forward", spy)
        run(
            *("predict", "--ckpt_path", run.last, "--config", "inpaint.yaml", "--data.samples=3"),
            *("--data.edit=digits", "--data.mask=4,0,8,8"),
        )
    assert torch.equal(drawn(run)[..., :4], digits[..., :4])
    for known, mask in seen:
        assert torch.equal(mask[:, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 4).expand(3, 8))
        torch.testing.assert_close(known, digits / 127.5 - 1)


@pytest.mark.slow
def test_validation_of_an_inpainter_repeats(run):
    run.write("inpainter.yaml", {"model": {"network": {"class_path": "Inpainter"}}})
    run.fit("--config", "inpainter.yaml")
    for name in ("one", "two"):
        torch.manual_seed(len(name) * ord(name[0]))
        run("validate", "--ckpt_path", run.last, f"--trainer.default_root_dir={name}")
    texts = [(run.folder / n / "csv/version_0/metrics.csv").read_text() for n in ("one", "two")]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_what_is_missing_or_of_no_use_is_one_line(run, fitted, digits, refused):
    def line(*flags):
        return refused("predict", "--ckpt_path", fitted.last, "--data.samples=2", *flags)

    overlay, picture = ("--config", "inpaint.yaml"), "--data.edit=digits/1.png"
    assert "data.edit: null; expected a picture or a folder" in line(*overlay)
    assert "data.mask: null; expected a picture or x0,y0,x1,y1" in line(*overlay, picture)
    assert "sampler.strength is 0.5" in line("--model.sampler.strength=0.5")
    assert "expected sampler.strength below 1" in line(picture)
    nothing = line(picture, "--data.mask=0,0,4,4")
    assert "data.mask: '0,0,4,4'; expected null, or Inpaint in sampler.guidance" in nothing
    assert "expected data.edit too" in line("--data.mask=0,0,4,4")
    assert "there is no such file" in line(*overlay, "--data.edit=1.png", "--data.mask=0,0,4,4")
    assert "inside 0,0,8,8" in line(*overlay, picture, "--data.mask=0,0,4,40")
    training = refused("fit", "--config", "tiny.yaml", *overlay)
    assert "data.edit: null" in training
    assert not list(run.folder.glob("run/predictions/*.png"))


def test_other_pixels_are_other_settings(run, fitted, digits, refused):
    command = (
        *("predict", "--ckpt_path", fitted.last, "--config", "inpaint.yaml", "--data.samples=2"),
        *("--data.edit=digits", "--data.mask=right.png"),
    )
    run(*command)
    run(*command)
    Image.fromarray(np.full((8, 8), 255, dtype=np.uint8)).save(run.folder / "right.png")
    assert "settings.json there has data.edit " in refused(*command)
