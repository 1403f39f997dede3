"""Two stages in a row, by the command line, against the stages run by hand."""

import copy
import json
import shutil
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from test_ddp import command
from tiny import TINY

from diffusion.callbacks.generation import by_stage, sampling
from diffusion.callbacks.recipe import difference, recipe
from diffusion.data import Digits, ImageFolder
from diffusion.guidance import ClassifierFree, Guidance, Inpaint, Static
from diffusion.metrics.evaluations import Evaluations, evaluation_figures
from diffusion.networks import Augmentation, UNet, Upsampler
from diffusion.noise import SeededNoise
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.cascade import Cascade


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    from diffusion.cli.main import main

    folder = tmp_path_factory.mktemp("cascade")
    import yaml

    pixels = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(40):
        picture = Image.fromarray(pixels.integers(0, 255, (16, 16), dtype=np.uint8))
        picture.save(folder / "pictures" / f"{i}.png")
    base, top = copy.deepcopy(TINY), copy.deepcopy(TINY)
    top["model"]["network"]["class_path"] = "Upsampler"
    process = {"class_path": "Cosine", "init_args": {"T": 20}}
    top["model"]["network"]["init_args"] |= {
        "image_size": 16,
        "num_classes": None,
        "augmentation": {
            "class_path": "Augmentation",
            "init_args": {"process": process, "most": 10, "level": 4},
        },
    }
    top["model"]["p_uncond"] = 0.0
    top["data"] = {
        "class_path": "Upsampling",
        "init_args": {
            "root": str(folder / "pictures"),
            "size": 16,
            "channels": 1,
            "low_size": 8,
            "batch_size": 8,
            "val_share": 0.2,
        },
    }
    checkpoints = []
    for name, config in {"base": base, "top": top}.items():
        config["trainer"]["default_root_dir"] = str(folder / name)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        main(["fit", "--config", str(folder / f"{name}.yaml")])
        checkpoints.append(str(folder / name / "checkpoints/last.ckpt"))
    return folder, checkpoints


def test_a_stage_continues_from_the_one_before(stages):
    _, checkpoints = stages
    cascade = Cascade(checkpoints)
    batch = {"index": torch.tensor([4, 9]), "label": torch.tensor([1, 3])}
    drawn = cascade.generate(batch, [4, 9])
    base, top = cascade.stages
    small = base.generate({"label": batch["label"]}, [4, 9])
    assert top.seed == base.seed + 2**32
    torch.testing.assert_close(drawn, top.generate({"low_res": small}, [4, 9]))
    alone = {k: v[1:] for k, v in batch.items()}
    torch.testing.assert_close(drawn[1:], cascade.generate(alone, [9]))


def test_every_stage_of_every_run_has_noise_of_its_own(stages, monkeypatch):
    noises, sample = [], Augmentation.sample

    def spy(self, x_low, *args):
        z, s = sample(self, x_low, *args)
        alpha, sigma = self.process.scales(s, x_low)
        noises.extend((z - alpha * x_low) / sigma)
        return z, s

    monkeypatch.setattr(Augmentation, "sample", spy)
    batch = {"index": torch.tensor([4, 9]), "label": torch.tensor([1, 3])}
    for run in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", run)
        cascade = Cascade([stages[1][0], stages[1][1], stages[1][1]])
        drawn = []
        for other in (0, 1):  # what else draws random numbers does not matter
            torch.manual_seed(other)
            drawn.append(cascade.generate(batch, [4, 9]))
        assert torch.equal(*drawn)
        del noises[-4:]
        seeds = [stage.seed for stage in cascade.stages]
        starts = [SeededNoise(seed, [4, 9]).normal((1, 8, 8)) for seed in seeds]
        noises.extend(torch.cat(starts))
    assert len(noises) == 2 * (2 + 2 + 6)
    small = [noise[:, :8, :8] for noise in noises]
    for a, b in combinations(small, 2):
        assert (a - b).abs().max() > 0.1


def test_the_level_of_noise_can_be_said(stages):
    cascade = Cascade(stages[1], level=7)
    low = {"low_res": torch.zeros(1, 1, 8, 8), "index": torch.tensor([3])}
    assert cascade.stages[1].denoiser.network.read(low)["level"].tolist() == [7]
    with pytest.raises(ValueError, match=r"augmentation.level: 11; expected 0 … most = 10"):
        Cascade(stages[1], level=11)


def test_each_stage_counts_for_what_is_drawn(stages):
    def of(**settings):
        trainer = SimpleNamespace(callbacks=[], precision="32-true")
        return recipe(trainer, Cascade(stages[1], **settings), Digits())  # pyright: ignore

    there = of()
    level = difference(there, of(level=7))
    assert level == "model.stages.1.network.conditioners.0.augmentation.level 4, now 7 (and 2 more)"
    steps = difference(there, of(samplers=[Sampler(DDIM(1.0), 2, [Static()]), None]))
    assert steps == "model.stages.0.sampler.steps 3, now 2"


class Guide(Guidance):
    """Evaluates a classifier once more than the network, and notes what it is checked against."""

    def __init__(self):
        self.classifier, self.checked = torch.nn.Linear(1, 1), []

    @property
    def networks(self):
        return (self.classifier,)

    def check(self, process, data):
        self.checked.append(data.shape)

    def guided(self, denoise, x_t, t, cond):
        self.classifier(x_t.flatten(1)[:, :1])
        return denoise(x_t, t, cond)


def test_evaluations_of_all_stages_are_counted(stages):
    cascade = Cascade(
        [stages[1][0], *[stages[1][1]] * 2],
        [
            Sampler(DDIM(), 2, [ClassifierFree(2.0), Guide()]),
            Sampler(DDIM(), 3, [Guide()]),
            Sampler(DDIM(), 4),
        ],
    )
    counts, expected = {}, {"nfe": 4 + 3 + 4, "nfe_8x8": 4, "nfe_16x16": 7, "classifier_nfe": 2 + 3}
    found = cascade.networks()
    with ExitStack() as counting:
        for name, parts in found.items():
            counts[name] = Evaluations()
            for part in parts:
                counting.enter_context(counts[name].counting(part))
        batch = {"index": torch.tensor([4, 9]), "label": torch.tensor([1, 3])}
        cascade.generate(batch, [4, 9])
    assert {name: count.rows / 2 for name, count in counts.items()} == expected
    assert [stage["steps"] for stage in by_stage(cascade, sampling)["stages"]] == [2, 3, 4]
    titles = [figure.title for figure in evaluation_figures(expected, 1.0).values()]
    assert titles[:4] == ["NFE", "NFE (8x8)", "NFE (16x16)", "Classifier's NFE"]
    assert set(cascade.stages[0].networks()) == {"nfe", "classifier_nfe"}


def attached(cascade, data, **settings):
    """Attaches a cascade to a trainer that has the data, and sets it up to draw."""
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                        **settings)  # fmt: skip
    trainer.datamodule, cascade.trainer = data, trainer
    cascade.setup("predict")
    return cascade


def pictures(folder, **settings):
    return ImageFolder(root=str(folder / "pictures"), size=16, channels=1, **settings)


def test_guides_of_all_stages_are_checked(stages):
    base, top = Guide(), Guide()
    samplers = [Sampler(DDIM(), 2, [guide]) for guide in (base, top)]
    attached(Cascade(stages[1], samplers), pictures(stages[0]))
    assert (base.checked, top.checked) == ([(1, 8, 8)], [(1, 16, 16)])


EDIT, MASK = {"edit": "0.png"}, {"mask": "0,0,8,8"}


@pytest.mark.parametrize(
    ("guides", "strengths", "settings", "message"),
    [
        ([[], []], [1, 1], EDIT, r"data.edit: .*0.png'; expected sampler.strength below 1"),
        ([[], []], [1, 1], EDIT | MASK, "data.mask: '0,0,8,8'; expected null, or Inpaint"),
        ([[Inpaint()], []], [1, 1], {}, "data.edit: null; expected a picture"),
        ([[], [Inpaint()]], [1, 1], EDIT, "data.mask: null; expected a picture"),
        ([[], []], [1, 0.5], {}, "data.edit: null; .*as sampler.strength is 0.5"),
        ([[], [Inpaint()]], [1, 1], EDIT | MASK, None),
        ([[], []], [0.5, 1], EDIT, None),
    ],
)
def test_given_pictures_are_what_a_stage_looks_at(stages, guides, strengths, settings, message):
    samplers = [Sampler(DDIM(), 2, g, strength=s) for g, s in zip(guides, strengths)]
    folder, checkpoints = stages
    given = {k: str(folder / "pictures" / v) if k == "edit" else v for k, v in settings.items()}
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        attached(Cascade(checkpoints, samplers), pictures(folder, **given))


def test_every_stage_draws_under_the_trainers_autocast(stages, monkeypatch):
    seen, forward = [], UNet.forward

    def spy(self, *args, **kwargs):
        seen.append((type(self), torch.is_autocast_enabled("cpu")))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", spy)
    cascade = attached(Cascade(stages[1]), pictures(stages[0]), precision="bf16-mixed")
    batch = {"index": torch.tensor([4]), "label": torch.tensor([1])}
    steps = cascade.trajectory(batch, [4])
    assert not any(torch.is_autocast_enabled("cpu") for _ in steps)
    assert {kind for kind, _ in seen} == {UNet, Upsampler}
    assert all(enabled for _, enabled in seen)


def of_both(stages, tmp_path):
    """A file with the configuration of a cascade that draws five pictures into the folder run."""
    import yaml

    folder, checkpoints = stages
    config = yaml.safe_load((folder / "top.yaml").read_text())
    config["model"] = {"class_path": "Cascade", "init_args": {"checkpoints": checkpoints}}
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    config["data"] = {"class_path": "ImageFolder", "init_args": {
        "root": str(folder / "pictures"), "size": 16, "channels": 1, "samples": 5}}  # fmt: skip
    del config["ema"], config["metrics"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return str(tmp_path / "c.yaml")


@pytest.mark.slow
def test_two_processes_draw_what_one_does(stages, tmp_path):
    """Three batches of two, two and one: a process has one batch more than the other."""
    config, drawn = of_both(stages, tmp_path), []
    for n in (1, 2):
        place = f"--trainer.default_root_dir={tmp_path / f'run{n}'}"
        command("predict", f"--config={config}", "--data.batch_size=2", place, processes=n)
        found = (tmp_path / f"run{n}/predictions").glob("*.png")
        drawn.append({path.name: path.read_bytes() for path in found})
    assert len(drawn[0]) == 6  # and grid.png
    assert drawn[0] == drawn[1]


def test_it_predicts_from_the_command_line(stages, tmp_path, capsys):
    from diffusion.cli.main import main

    config = of_both(stages, tmp_path)
    main(["predict", "--config", config])
    pictures = sorted((tmp_path / "run/predictions").glob("0*.png"))
    assert [Image.open(p).size for p in pictures] == [(16, 16)] * 5
    labels = [int(p.stem.split("_")[1]) for p in pictures]
    assert labels == list(range(5))  # the base knows its classes, the folder has none
    with pytest.raises(SystemExit):
        main(["predict", "--config", config, "--model.level=7"])
    assert (
        "settings.json there has model.stages.1.network.conditioners.0" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["fit", "--config", config])


def test_a_test_says_what_all_stages_did(stages, tmp_path):
    import yaml

    from diffusion.cli.main import main

    folder, checkpoints = stages
    for i, picture in enumerate(sorted((folder / "pictures").glob("*.png"))):
        (place := tmp_path / "classes" / str(i % 10)).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
    config = yaml.safe_load((folder / "base.yaml").read_text())
    config["model"] = {"class_path": "Cascade", "init_args": {"checkpoints": checkpoints}}
    config["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "precision": "bf16-mixed"}
    config["data"] = {"class_path": "ImageFolder", "init_args": {
        "root": str(tmp_path / "classes"), "size": 16, "channels": 1,
        "val_share": 0.3}}  # fmt: skip
    config["metrics"] |= {"n": 4, "cache": str(tmp_path / "cache")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    main(["test", "--config", str(tmp_path / "c.yaml"), "--samples.rows=1"])
    record = json.loads((tmp_path / "run/metrics.json").read_text())
    counted = {k: v for k, v in record["figures"].items() if "nfe" in k}
    assert counted == {"nfe": 6, "nfe_8x8": 3, "nfe_16x16": 3}
    assert [stage["steps"] for stage in record["sampler"]["stages"]] == [3, 3]


@pytest.mark.parametrize(
    ("order", "message"),
    [([0, 0], "stage 2 reads .* a base model first"), ([1, 0], "stage 1 reads .* a base model")],
)
def test_stages_in_a_wrong_order_are_refused(stages, order, message):
    with pytest.raises(ValueError, match=message):
        Cascade([stages[1][i] for i in order])


def test_sizes_in_the_wrong_order_are_refused(stages):
    large, small = (Cascade(stages[1]).stages[1] for _ in range(2))
    large.spec, small.spec = (replace(large.spec, shape=(1, side, side)) for side in (32, 16))
    base = Cascade(stages[1][:1]).stages[0]
    assert Cascade([base, small, large]).shape == (1, 32, 32)
    with pytest.raises(ValueError, match="a stage of 16 x 16 after one of 32 x 32; expected"):
        Cascade([base, large, small])


def test_a_file_that_is_cut_short_or_of_something_else_is_refused(stages, tmp_path):
    whole = (stages[0] / "base/checkpoints/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.checkpoints: .*cut.ckpt; expected .*cut short"):
        Cascade([str(tmp_path / "cut.ckpt")])
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="expected a checkpoint of this project"):
        Cascade([str(tmp_path / "weights.ckpt")])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.checkpoints: .*there is none"):
        Cascade([str(tmp_path / "no.ckpt")])
