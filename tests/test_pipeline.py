import PIL.Image
import pytest
import torch
from tiny import TINY
from torchvision.io import read_image

import diffusion
from diffusion.common.pixels import quantize
from diffusion.data import Digits
from diffusion.pipeline import Pipeline, trainer
from diffusion.sampler import Sampler
from diffusion.step import DDIM

KEYS = ("seed", "sampler", "weights", "version", "index", "label")


@pytest.fixture
def pipeline(fitted):
    return Pipeline.from_pretrained(fitted.folder / "run", device="cpu")


def test_it_draws_what_predict_draws(pipeline, fitted, run):
    run("predict", "--ckpt_path", fitted.last, "--data.samples=4", "--data.labels=[3,5]")
    there = sorted((run.folder / "run/predictions").glob("0*.png"))
    drawn = quantize(pipeline.draw(4, labels=[3, 5], batch_size=3))
    for image, file in zip(drawn, there, strict=True):
        assert (image.int() - read_image(str(file)).int()).abs().max() <= 1
    (picture,) = pipeline.draw(labels=[3], pil=True)
    assert picture.size == (8, 8)


def test_what_is_saved_says_how_it_was_made(pipeline, run, fitted):
    run("predict", "--ckpt_path", fitted.last, "--data.samples=2", "--data.labels=[5,3]")
    there = sorted((run.folder / "run/predictions").glob("0*.png"))
    first, other = pipeline.draw(2, labels=[5, 3]), pipeline.draw(1, seed=7)
    files = pipeline.save(first, run.folder / "drawn")
    assert [file.name for file in files] == ["000000.png", "000001.png"]
    for file, theirs in zip(files, there, strict=True):
        text = PIL.Image.open(file).text
        assert text == PIL.Image.open(theirs).text
    assert text["diffusion.label"] == "3"
    assert text.keys() == {f"diffusion.{key}" for key in KEYS}
    (file,) = pipeline.save(other, run.folder / "other")
    assert PIL.Image.open(file).text["diffusion.seed"] == "7"
    (file,) = pipeline.save(torch.zeros(1, 1, 8, 8), run.folder / "others")
    assert PIL.Image.open(file).text == {}


def test_seed_and_sampler_are_of_one_call(pipeline):
    first = pipeline.draw(2)
    assert len(pipeline.draw()) == 10  # one of each class
    other = pipeline.draw(2, seed=1, sampler=Sampler(DDIM(), 2))
    assert not torch.allclose(first, other)
    assert torch.equal(first, pipeline.draw(2))


def test_it_continues_from_pictures(pipeline, tmp_path):
    PIL.Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    edit = {"edit": tmp_path / "white.png", "sampler": Sampler(DDIM(), 2, strength=0.05)}
    assert pipeline.draw(2, **edit).mean() > 0.5
    with pytest.raises(ValueError, match=r"data.edit: .*; expected .*strength below 1"):
        pipeline.draw(2, edit=tmp_path / "white.png")
    with pytest.raises(FileNotFoundError, match=r"missing.png.*; expected .*there is no such file"):
        pipeline.draw(2, edit=tmp_path / "missing.png")


def test_what_the_model_does_not_read_is_refused(pipeline):
    with pytest.raises(ValueError, match="prompts: 'a fox'; expected None, as the Diffusion reads"):
        pipeline.draw(prompts="a fox")
    with pytest.raises(ValueError, match=r"data.labels: 12; expected classes 0 .. 9"):
        pipeline.draw(labels=[12])


def test_what_cannot_be_loaded_is_refused_in_a_line(fitted, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"checkpoint: nothing.ckpt; expected a checkpoint"):
        Pipeline.from_pretrained("nothing.ckpt")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"checkpoint: nobody/none; expected .* the hub") as error:
        Pipeline.from_pretrained("nobody/none")
    assert "\n" not in str(error.value)
    content = torch.load(fitted.last, weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=r"weights.ckpt; expected one that says what it is of"):
        Pipeline.from_pretrained(tmp_path / "weights.ckpt")


def test_a_few_lines_train_what_a_few_lines_load(tmp_path, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    pipeline = Pipeline.from_config(TINY["model"])
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    pipeline.fit(Digits(batch_size=8), tmp_path, max_steps=3, **quiet)
    drawn = pipeline.draw(2)
    again = diffusion.Pipeline.from_pretrained(tmp_path, device="cpu")
    assert torch.equal(drawn, again.draw(2))


def test_what_is_exported_is_read(fitted, tmp_path, monkeypatch):
    from diffusion.cli.convert import export

    model = {**TINY["model"], "p_uncond": 0.0, "network": dict(TINY["model"]["network"])}
    model["network"]["init_args"] = {**model["network"]["init_args"], "channels": 16}
    del model["network"]["init_args"]["num_classes"]
    model["sampler"] = {"step": {"class_path": "DDIM"}, "steps": 2, "guidance": ["Static"]}
    pipeline = Pipeline.from_config(model)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    pipeline.fit(Digits(batch_size=8), tmp_path / "run", max_steps=1, **quiet)
    ckpt = str(tmp_path / "run/checkpoints/last.ckpt")
    export(to="diffusers", ckpt=ckpt, output=str(tmp_path / "out"))
    there = Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    assert there.system.sampler.steps == 20  # a scheduler does not say how many there are to be
    drawn = there.draw(2, sampler=pipeline.system.sampler)
    torch.testing.assert_close(drawn, pipeline.draw(2), rtol=0, atol=1e-4)


def test_a_trainer_has_the_projects_defaults():
    made = trainer(max_steps=3, val_check_interval=5)
    assert (made.max_steps, made.max_epochs, made.val_check_interval) == (3, -1, 5)
    assert made.loggers == []
