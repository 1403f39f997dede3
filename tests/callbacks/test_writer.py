import json

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import read_image

from diffusion import __version__
from diffusion.callbacks import predictions
from diffusion.callbacks.writer import Writer
from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import quantize
from diffusion.data import Digits
from diffusion.systems.diffusion import Diffusion


@pytest.fixture
def predict(run, fitted):
    def call(*flags):
        run("predict", "--ckpt_path", fitted.last, *flags)
        return run.folder / "run/predictions"

    return call


def test_files_are_numbered_and_labelled_images(predict, fitted):
    folder = predict("--data.labels=[3, 5]", "--data.samples=5", "--data.batch_size=2")
    names = [f"00000{i}_{(3, 5)[i % 2]}.png" for i in range(5)]
    assert sorted(p.name for p in folder.glob("*.png")) == [*names, "grid.png"]
    module = Diffusion.load_from_checkpoint(fitted.last)
    image = quantize(module.generate({"label": torch.tensor([3])}, [4]))[0]
    assert (read_image(str(folder / "000004_3.png")).int() - image.int()).abs().max() <= 1


def test_pictures_say_how_they_were_made(predict, fitted, run):
    folder = predict("--data.labels=[3]", "--data.samples=2")
    settings = json.loads((folder / "settings.json").read_text())
    with Image.open(folder / "000001_3.png") as file:
        said = {key.removeprefix("diffusion."): text for key, text in file.text.items()}
    sampler = json.loads(said.pop("sampler"))
    assert sampler["steps"] == settings["model"]["sampler"]["steps"]
    weights = weights_digest(
        Diffusion.load_from_checkpoint(fitted.last).denoiser.network.state_dict()
    )
    assert weights == settings["model"]["weights"]
    assert said == {
        "index": "1", "label": "3", "seed": "0", "version": __version__, "weights": weights
    }  # fmt: skip
    with Image.open(folder / "grid.png") as file:
        assert file.text["diffusion.weights"] == weights
    plain = predict("--writer.metadata=false", "--writer.folder=plain").parents[1] / "plain"
    for path in plain.glob("*.png"):
        with Image.open(path) as file:
            assert file.text == {}


def test_the_condition_is_made_once(predict, monkeypatch):
    made, condition = [], Diffusion.condition

    def spy(self, batch):
        made.append(batch["index"].tolist())
        return condition(self, batch)

    monkeypatch.setattr(Diffusion, "condition", spy)
    predict("--data.batch_size=8")
    assert made == [list(range(8)), list(range(8, 12))]


def test_its_bar_and_the_trainers_go_together(predict):
    for _ in range(2):  # the second time there is nothing to draw
        folder = predict("--data.samples=3", "--trainer.enable_progress_bar=true")
    assert len(list(folder.glob("0*.png"))) == 3


def test_a_second_call_draws_what_is_missing(predict, monkeypatch):
    folder = predict("--data.batch_size=4")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "000001_1.png").unlink()
    (folder / "000006_6.png").unlink()
    drawn = []
    generate = Diffusion.generate

    def spy(self, batch, seeds):
        drawn.extend(seeds)
        return generate(self, batch, seeds)

    monkeypatch.setattr(Diffusion, "generate", spy)
    predict("--data.batch_size=4")
    assert drawn == [0, 1, 2, 3, 4, 5, 6, 7]  # whole batches, so that the bytes stay the same
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    drawn.clear()
    predict("--data.batch_size=4", "--data.samples=14")
    assert drawn == [12, 13]


def test_npz(predict):
    folder = predict("--writer.format=npz", "--data.batch_size=5")
    with np.load(folder / "samples.npz") as file:
        assert file["images"].shape == (12, 8, 8, 1)
        assert file["images"].dtype == np.uint8
        assert file["labels"].tolist() == [i % 10 for i in range(12)]
        assert file["index"].tolist() == list(range(12))
        first = file["images"]
    (folder / "000003_3.npy").unlink()
    (folder / "samples.npz").unlink()
    predict("--writer.format=npz", "--data.batch_size=5")
    with np.load(folder / "samples.npz") as file:
        assert np.array_equal(file["images"], first)


OTHER = {
    ("--model.sampler.step.eta=0.5",): "model.sampler.step.eta 1.0, now 0.5;",
    ("--model.sampler.guidance=[]",): 'model.sampler.guidance ["Static"], now [] (and 1 more);',
    ("--model.process=Linear",): 'model.process "Cosine", now "Linear" (and ',
    ("--data.labels=[4]", "--model.network.groups=2"): 'data.labels "0 … 9", now "4" (and 2 more);',
    ("--seed_everything=1",): "model.seed 0, now 1;",
    ("--trainer.precision=bf16-mixed",): 'trainer.precision "32-true", now "bf16-mixed";',
    ("--writer.format=npz",): 'writer.format "png", now "npz";',
}


@pytest.fixture(scope="module")
def two(once):
    with once("two") as run:
        run.fit()
        run("predict", "--ckpt_path", run.last, "--data.samples=2")
        yield run


@pytest.mark.parametrize("flags", OTHER, ids=" ".join)
def test_the_setting_that_differs_is_named(two, refused, flags, monkeypatch):
    before = {p.name: p.read_bytes() for p in (two.folder / "run/predictions").iterdir()}
    monkeypatch.chdir(two.folder)
    line = refused("predict", "--ckpt_path", two.last, "--data.samples=2", *flags)
    assert line.startswith("writer.folder: run/predictions; settings.json there has ")
    assert OTHER[flags] in line
    assert "; expected an empty folder or the same settings" in line
    after = {p.name: p.read_bytes() for p in (two.folder / "run/predictions").iterdir()}
    assert after == before


@pytest.mark.slow
def test_another_checkpoint_of_the_same_name_is_refused(run, refused):
    run.fit()
    run("predict", "--ckpt_path=last", "--config=tiny.yaml", "--data.samples=2")
    run.fit("--ckpt_path=last", "--trainer.max_steps=5")
    for path in ("last", run.last):
        line = refused("predict", "--ckpt_path", path, "--config=tiny.yaml", "--data.samples=2")
        assert "settings.json there has model.weights " in line


def test_other_labels_of_the_samples_that_are_there_are_refused(predict, fitted, refused):
    folder = predict("--data.samples=3")
    (folder / "000001_1.png").rename(folder / "000001_7.png")
    line = refused("predict", "--ckpt_path", fitted.last, "--data.samples=3")
    assert "000001_7.png is there, now label 1 is asked for" in line


@pytest.mark.slow
def test_notes_of_another_version_or_none_and_files_of_others(predict, fitted, refused):
    folder = predict("--data.samples=2")
    (folder / "2024-01-01.png").write_bytes(b"a holiday")
    predict("--data.samples=2")
    command = ("predict", "--ckpt_path", fitted.last, "--data.samples=2")
    (folder / "settings.json").write_text('{"checkpoint": "0123", "labels": null, "model": "x"}')
    assert "settings.json there is of another version" in refused(*command)
    (folder / "settings.json").write_text("{")
    assert "settings.json there cannot be read" in refused(*command)
    (folder / "settings.json").unlink()
    assert "no settings.json that says how they were made" in refused(*command)
    assert (folder / "2024-01-01.png").read_bytes() == b"a holiday"


def test_it_works_without_the_command_line(tmp_path, fitted):
    def draw(module, **of):
        trainer = L.Trainer(
            accelerator="cpu", logger=False, callbacks=[Writer(str(tmp_path))],
            inference_mode=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.predict(module, datamodule=Digits(samples=2, **of), return_predictions=False)

    module = Diffusion.load_from_checkpoint(fitted.last)
    draw(module)
    draw(Diffusion.load_from_checkpoint(fitted.last))
    with pytest.raises(ValueError, match=r'data.labels "0 … 9", now "1, 2"'):
        draw(module, labels=[1, 2])
    with torch.no_grad():
        next(module.parameters()).add_(0.1)
    with pytest.raises(ValueError, match=r"settings.json there has model.weights"):
        draw(module)


def test_the_page_has_the_first_images(predict):
    folder = predict("--data.samples=3", "--writer.format=npz")
    assert (folder / "grid.png").exists()


def test_samples_are_gathered_one_by_one(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 6), dtype=np.uint8)
    for i, image in enumerate(pixels):
        np.save(tmp_path / f"{i:06d}_{9 - i}.npy", image)
    monkeypatch.setattr(np, "stack", None)
    predictions.gather(predictions.numbered(tmp_path), tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz") as file:
        assert np.array_equal(file["images"], pixels.transpose(0, 2, 3, 1))
        assert file["labels"].tolist() == [9, 8, 7, 6, 5]
        assert file["index"].tolist() == [0, 1, 2, 3, 4]


def test_the_command_line_keeps_no_samples(predict, monkeypatch):
    from lightning.pytorch.loops import _PredictionLoop

    kept = []
    end = _PredictionLoop.on_run_end
    monkeypatch.setattr(
        _PredictionLoop,
        "on_run_end",
        lambda self: (kept.extend(self._predictions), end(self))[1],
    )
    predict("--data.samples=3")
    assert kept == [[]]


def test_without_labels_names_are_numbers_alone(run):
    run.write("plain.yaml", {"model": {"network": {"init_args": {"num_classes": None}}}})
    run.fit("--config", "plain.yaml", "--model.p_uncond=0", "--trainer.max_steps=1")
    run("predict", "--ckpt_path", run.last, "--data.samples=2")
    folder = run.folder / "run/predictions"
    assert sorted(p.name for p in folder.glob("0*.png")) == ["000000.png", "000001.png"]


POINTS = {
    "model": {
        "network": {
            "class_path": "diffusion.networks.MLP",
            "init_args": {"dim": 2, "width": 8, "depth": 1},
        },
        "process": {"class_path": "Sohl2015", "init_args": {"T": 5}},
        "parameterization": "MeanShift",
        "objective": {
            "class_path": "VariationalBound",
            "init_args": {"variance": "small", "levels": None},
        },
        "sampler": {"step": {"class_path": "DDPM", "init_args": {"variance": "small"}}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0e-3}},
    },
    "data": {"class_path": "SwissRoll", "init_args": {"batch_size": 32, "samples": 40}},
    "samples": {"every_n_steps": 2, "points": 50, "moments": 3},
    "likelihood": {"n": 50, "batch_size": 20},
    "metrics": {"extractor": None},
}


@pytest.fixture
def points(run, tiny):
    run.write("points.yaml", {**tiny, **POINTS})
    run("fit", "--config", "points.yaml")
    return run


def test_points_are_written_as_npz_and_not_as_pictures(points, refused):
    command = ("predict", "--ckpt_path", points.last)
    line = refused(*command)
    assert "writer.format" in line
    assert "npz" in line
    points(*command, "--writer.format=npz")
    with np.load(points.folder / "run/predictions/samples.npz") as file:
        assert file["images"].shape == (40, 2)
        assert file["images"].dtype == np.float32
        assert "labels" not in file
    assert (points.folder / "run/predictions/grid.png").exists()


def test_points_are_drawn_as_clouds_and_have_a_bound(points):
    points("test", "--ckpt_path", points.last)
    names = {p.name for p in (points.folder / "run/samples").iterdir()}
    steps = [f"step_000000{n}_{kind}.png" for n in (2, 4) for kind in ("raw", "average")]
    assert names == set(steps)
    one = read_image(str(points.folder / "run/samples.png"))
    three = read_image(str(points.folder / "run/trajectory.png"))
    assert three.shape[2] == 3 * one.shape[2]
    note = json.loads((points.folder / "run/likelihood.json").read_text())
    parts = note["L_T"] + note["L_sum"] + note["L_0"]
    assert note["bits_per_dim"] == pytest.approx(parts, rel=1e-6)
    assert note["bits_per_dim"] == pytest.approx(sum(note["by_t"]), rel=1e-6)
    assert len(note["by_t"]) == 6
    assert note["n"] == 50
    assert note["standard_error"] > 0


def test_somebody_elses_files_are_left_alone(fitted, run):
    folder = run.folder / "run/predictions"
    folder.mkdir(parents=True)
    names = ("2024-01-01.png", "000001_copy.png", "12.png", "000002_3_4.png")
    for name in names:
        (folder / name).write_bytes(b"mine")
    run("predict", "--ckpt_path", fitted.last, "--data.samples=3")
    assert sorted(p.name for p in folder.glob("00000?_?.png")) == [
        "000000_0.png",
        "000001_1.png",
        "000002_2.png",
    ]
    assert all((folder / name).read_bytes() == b"mine" for name in names)
