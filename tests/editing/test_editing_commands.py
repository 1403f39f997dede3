"""`diffusion invert`, `interpolate`, `reword` and `truncate`, and variations by `predict`."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffusion import __version__
from diffusion.editing.embedded import Embedded
from diffusion.editing.truncate import truncate

CLIP = str(Path(__file__).parents[2] / "weights/clip_emoji")
DECODER = {
    "model": {
        "network": {
            "class_path": "UNet",
            "init_args": {
                "image_size": 32, "channels": 8, "multipliers": [1, 1, 1], "attention": [8],
                "blocks": 1, "groups": 4,
                "streams": {
                    "text": {"class_path": "Stream", "init_args": {"encoder": {
                        "class_path": "TextTransformer", "init_args": {"width": 8, "length": 6}}}},
                    "embedding": {"class_path": "Stream", "init_args": {"encoder": {
                        "class_path": "ImageEmbedding", "init_args": {"codec": {
                            "class_path": "ClipImage", "init_args": {"checkpoint": CLIP}}}}}},
                },
            },
        },
        "process": {"class_path": "Cosine", "init_args": {"T": 20}},
        "parameterization": "V",
        "objective": "Simple",
        "p_uncond": 0.3,
        "sampler": {"step": {"class_path": "DDIM", "init_args": {"eta": 0.0}}, "steps": 2,
                    "guidance": [{"class_path": "ClassifierFree", "init_args": {"scale": 2.0}}]},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-3}},
    },
    "data": {"class_path": "ImageText",
             "init_args": {"root": "pictures", "size": 32, "batch_size": 4, "val_share": 0.25}},
}  # fmt: skip


@pytest.fixture(scope="module")
def decoder(once):
    """A run of two steps on eight pictures of one colour each."""
    with once("decoder") as made:
        folder = made.folder / "pictures"
        folder.mkdir()
        for i, colour in enumerate(
            ("red", "green", "blue", "gray", "white", "black", "pink", "tan")
        ):
            Image.new("RGB", (40, 32), colour).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(f"a {colour} wall")
        from tiny import TINY

        rest = {k: TINY[k] for k in ("ema", "samples", "wandb", "trainer")}
        made.write("decoder.yaml", {**rest, **DECODER})
        made("fit", "--config", "decoder.yaml", "--trainer.max_steps=2")
        yield made


@pytest.fixture
def there(decoder, monkeypatch):
    monkeypatch.chdir(decoder.folder)
    return decoder


def test_invert(there, capsys):
    there("invert", "pictures/0.png", "pictures/1.png", "--ckpt_path", there.last, "--steps=4")
    said = capsys.readouterr().out
    assert "without guidance: RMSE" in said
    assert "guidance 3: RMSE" in said
    found = load_file("inverted.safetensors")
    assert found["x_T"].shape == (2, 3, 32, 32)
    torch.testing.assert_close(found["z"].norm(dim=1), torch.full((2,), 128**0.5))
    said = Image.open("inverted.png").text
    assert said["diffusion.sampler"] == "DDIM, 4 steps, classifier-free scale 3"
    assert said["diffusion.version"] == __version__
    assert len(said["diffusion.weights"]) == 16
    there("invert", "pictures/0.png", "--ckpt_path", there.last, "--steps=4", "--scale=1")
    assert len(list(there.folder.glob("inverted*.png"))) == 2  # the first is renamed


@pytest.mark.slow
def test_the_others_write_a_page_each(there):
    last = ("--ckpt_path", there.last, "--steps=2")
    there("interpolate", "pictures/0.png", "pictures/2.png", *last, "--frames=3")
    there("reword", "pictures/0.png", *last, "--before=a red wall", "--after=a blue wall",
          "--clip", CLIP, "--frames=3")  # fmt: skip
    there("truncate", "pictures/0.png", *last, "--folder=pictures", "--dims=2", "--dims=128")
    for name in ("interpolation", "reworded", "truncated"):
        page = Image.open(f"{name}.png")
        assert page.width > 128
        assert page.text.keys() >= {"diffusion.sampler", "diffusion.weights", "diffusion.version"}


def test_truncate_says_how_many_directions_there_are(there, tmp_path, monkeypatch):
    """Of nine pictures, of which two are the same, seven: with these one of them keeps its z."""
    found, folder = {}, shutil.copytree("pictures", tmp_path / "nine")
    shutil.copy("pictures/0.png", folder / "8.png")

    def draw(model, latents, scale):
        own = model.codec.encode(model.read(["pictures/0.png"]))
        found.update(lost=(latents.z - own).norm(dim=1))
        return latents.x_T

    monkeypatch.setattr(Embedded, "draw", draw)
    monkeypatch.setattr(Embedded, "sheet", lambda *args: found.update(texts=args[2]))
    last = {"ckpt_path": there.last, "steps": 2, "dims": [2, 128]}
    truncate("pictures/0.png", **last, folder=str(folder))
    assert found["texts"] == ["0.png", "2 of 7", "7 of 7"]
    assert found["lost"][0] > 1
    assert found["lost"][1] < 1e-4


def test_reword_refuses_another_clip_than_the_models(there, refused, tmp_path):
    """One number of its picture's tower is another: g and z would not be of one space."""
    other = shutil.copytree(CLIP, tmp_path / "clip")
    with safe_open(file := other / "model.safetensors", "pt") as given:
        about, weights = given.metadata(), load_file(file)
    next(w for name, w in weights.items() if "image" in name).view(-1)[0] += 1
    save_file(weights, file, about)
    texts = ("--before=a red wall", "--after=a blue wall", "--clip", other)
    picture = there.folder / "pictures/0.png"
    line = refused("reword", picture, "--ckpt_path", there.last, "--steps=2", *texts)
    assert line == f"clip: {other}; expected the CLIP whose embeddings the network reads"


@pytest.mark.slow
def test_variations_by_predict(there):
    """They are the samples that z of the picture gives, with no text."""
    from diffusion.pipeline import Pipeline

    there("predict", "--ckpt_path", there.last, "--data.image_prompt=pictures/0.png",
          "--data.samples=3", "--trainer.default_root_dir=variations")  # fmt: skip
    drawn = sorted(there.folder.glob("variations/**/00000?*.png"))
    assert len(drawn) == 3
    pipe = Pipeline.from_pretrained(there.last)
    same = pipe.draw(3, image_prompt="pictures/0.png")
    other = pipe.draw(3, image_prompt="pictures/2.png")
    assert (same - other).abs().max() > 0
    z = pipe.system.denoiser.network.streams.encoders["embedding"].codec
    x = torch.full((1, 3, 32, 32), -1.0)
    x[:, 0] = 1  # red
    batch = {"text": [""] * 3, "embedding": z.encode(x).expand(3, -1)}
    assert torch.equal(pipe.system.generate(batch, range(3)), same)


def test_bad_input_is_one_line(there, fitted, refused):
    run = ("--ckpt_path", there.last, "--steps=4")
    pictures = there.folder / "pictures"
    assert "pictures: 1; expected two" in refused("interpolate", pictures / "0.png", *run)
    assert "nowhere.png; expected a picture" in refused("invert", "nowhere.png", *run)
    plain = refused(
        "interpolate",
        pictures / "0.png",
        pictures / "1.png",
        "--ckpt_path",
        fitted.last,
        "--steps=4",
    )
    assert "expected a network that reads an ImageEmbedding" in plain
    dims = ("--dims=0", "--folder", pictures)
    assert "dims: [0]; expected 1 … 128" in refused("truncate", pictures / "0.png", *run, *dims)
    kept = ("--output", "/proc/page.png")
    nowhere = refused("truncate", pictures / "0.png", *run, "--folder", pictures, *kept)
    assert "output: /proc; expected a folder that can be written to" in nowhere
    texts = ("--before=a", "--after=b", "--clip=nowhere")
    line = refused("reword", pictures / "0.png", *run, *texts)
    assert line.startswith("clip: nowhere; expected a file")
    given = ("--data.image_prompt", "nowhere.png")
    line = refused("predict", "--ckpt_path", there.last, *given)
    assert line.startswith("data.image_prompt: nowhere.png; expected a picture or a folder")
    given = ("--data.image_prompt", pictures / "0.png")
    assert "reads no ImageEmbedding" in refused("predict", "--ckpt_path", fitted.last, *given)
