import copy
import csv
import json
import math
import types

import pytest
import torch
import torch.nn.functional as F
from captioned import Captioned
from tiny import TINY

from diffusion.condition import Condition
from diffusion.networks import TextTransformer, Towers, ViT
from diffusion.noise import SeededNoise, Use
from diffusion.process import Cosine
from diffusion.spec import DataSpec
from diffusion.systems import retrieval
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import FrozenClip, Trained, TrainedClip
from diffusion.systems.retrieval import Pairs, info_nce, numbers
from diffusion.systems.trainer import gather_rows

TEXT = {
    "class_path": "TextTransformer",
    "init_args": {"width": 16, "depth": 1, "heads": 2, "length": 8, "rows": 64},
}
IMAGE = {
    "class_path": "ViT",
    "init_args": {
        "image_size": 8,
        "patch": 4,
        "width": 16,
        "depth": 1,
        "heads": 2,
        "out_channels": 6,
        "T": 20,
    },
}
CONTRASTIVE = {
    "class_path": "Contrastive",
    "init_args": {
        "network": {"class_path": "Towers", "init_args": {"image": IMAGE, "text": TEXT}},
        "process": {"class_path": "Cosine", "init_args": {"T": 20}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0e-2}},
        "crop": 1,
    },
}
DATA = {"class_path": "captioned.Captioned", "init_args": {"batch_size": 8, "samples": 12}}


def of_clip(tiny):
    tiny["trainer"].update(limit_val_batches=1.0, limit_test_batches=1.0)
    return {**tiny, "model": copy.deepcopy(CONTRASTIVE), "data": DATA}


@pytest.fixture
def contrast(run, tiny):
    """The command line in a folder where clip.yaml trains a tiny CLIP."""
    run.write("clip.yaml", of_clip(tiny))
    return run


@pytest.fixture(scope="module")
def contrasted(once):
    """Folders "noisy" and "clean", each a CLIP trained for four steps, to be read only."""
    with once("contrasted") as made:
        made.write("clip.yaml", of_clip(copy.deepcopy(TINY)))
        made("fit", "--config", "clip.yaml", "--trainer.default_root_dir=noisy")
        clean = ("--model.process=null", "--trainer.default_root_dir=clean")
        made("fit", "--config", "clip.yaml", *clean)
    return made


def checkpoint(contrasted, kind="noisy"):
    return str(contrasted.folder / kind / "checkpoints/last.ckpt")


def logged(folder, name):
    rows = [row for p in folder.glob("csv/*/metrics.csv") for row in csv.DictReader(p.open())]
    return [float(row[name]) for row in rows if row.get(name)]


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=1)


def module(process=None, **more):
    towers = Towers(
        ViT(8, 3, 4, 16, 1, 2, 6, process and process.T), TextTransformer(16, 1, 2, 8, 64)
    )
    return Contrastive(towers, process, torch.optim.AdamW, **more)


def test_loss_is_clips():
    """Its pseudocode: the mean of the cross-entropies along both axes, with the diagonal right."""
    f, g, scale = unit(7, 5), unit(7, 5), torch.tensor(9.0)
    number = numbers([str(i) for i in range(7)])
    losses, hits = info_nce(f, g, scale, (f, g, number), torch.arange(7))
    logits = 9 * f @ g.T
    both = [F.cross_entropy(x, torch.arange(7)) for x in (logits, logits.T)]
    torch.testing.assert_close(losses.mean(), sum(both) / 2)
    assert hits.tolist() == (logits.argmax(1) == torch.arange(7)).tolist()
    # A share of the pairs among all of them: as one process of several.
    share, _ = info_nce(f[4:], g[4:], scale, (f, g, number), torch.arange(4, 7))
    torch.testing.assert_close(share, losses[4:])


def test_those_with_the_same_text_are_left_out():
    f, scale, texts = unit(5, 4), torch.tensor(3.0), ["a", "b", "a", "c", "a"]
    row = {text: unit(1, 4)[0] for text in texts}
    g = torch.stack([row[text] for text in texts])
    losses, _ = info_nce(f, g, scale, (f, g, numbers(texts)), torch.arange(5))
    for i in range(5):  # brute force
        others = [j for j in range(5) if j == i or texts[j] != texts[i]]
        to_text = -math.log(
            math.exp(3 * f[i] @ g[i]) / sum(math.exp(3 * f[i] @ g[j]) for j in others)
        )
        to_image = -math.log(
            math.exp(3 * f[i] @ g[i]) / sum(math.exp(3 * f[j] @ g[i]) for j in others)
        )
        assert abs(losses[i].item() - (to_text + to_image) / 2) < 1e-5
    alone, _ = info_nce(f[:1], g[:1], scale, (f[::2], g[::2], numbers("aaa")), torch.tensor([0]))
    assert alone.tolist() == [0]


def test_numbers_tell_texts_apart():
    found = numbers(["a red fox", "a red fox ", "", "a red fox"])
    assert found.dtype == torch.int64
    assert found[0] == found[3]
    assert len(found.unique()) == 3
    assert numbers(["a red fox"]) == found[0]  # not Python's hash, which changes


def brute(pairs):
    """Recalls by sorting, of vectors without ties."""
    products = pairs.images @ pairs.texts.T
    found = {}
    for k in retrieval.KS:
        near = products.topk(min(k, len(pairs.texts)), dim=1).indices
        hits = [of in row for of, row in zip(pairs.number.tolist(), near.tolist())]
        found[f"recall@{k}"] = sum(hits) / len(hits)
        near = products.topk(min(k, len(pairs.number)), dim=0).indices.T
        hits = [any(pairs.number[i] == j for i in row) for j, row in enumerate(near.tolist())]
        found[f"recall@{k}_t2i"] = sum(hits) / len(hits)
    return found


def test_recall_against_sorting(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 7)
    number = torch.randint(0, 20, (60,)) * 1000 - 9000
    g = {n: unit(1, 3)[0] for n in number.tolist()}
    pairs = Pairs.from_each(unit(60, 3), torch.stack([g[n] for n in number.tolist()]), number)
    assert len(pairs.texts) == len(number.unique())
    for i, n in enumerate(number.tolist()):
        assert torch.equal(pairs.texts[pairs.number[i]], g[n])
    figures = pairs.figures(torch.tensor(4.0))
    for name, value in brute(pairs).items():
        assert abs(figures[name] - value) < 1e-9, name
    texts = pairs.texts[pairs.number]
    everything = (pairs.images, texts, number)
    losses, _ = info_nce(pairs.images, texts, torch.tensor(4.0), everything, torch.arange(60))
    assert abs(figures["loss"] - losses.mean().item()) < 1e-5


def test_vectors_that_are_all_the_same_find_nothing():
    same = F.normalize(torch.ones(12, 3), dim=1)
    figures = Pairs.from_each(same, same, torch.arange(12)).figures(torch.tensor(4.0))
    assert [figures[f"recall@{k}"] for k in (1, 5, 10)] == [0, 0, 0]
    assert [figures[f"recall@{k}_t2i"] for k in (1, 5, 10)] == [0, 0, 0]
    assert abs(figures["loss"] - math.log(12)) < 1e-5


def test_chance_is_what_random_vectors_have():
    number = torch.tensor([0] * 6 + [1] * 3 + list(range(2, 23)))
    found = []
    for _ in range(400):
        pairs = Pairs.from_each(unit(30, 8), unit(30, 8), number)
        found.append(pairs.figures(torch.tensor(1.0)))
    for name, value in pairs.chance().items():
        assert abs(retrieval.mean(found)[name] - value) < 0.02, name
    assert pairs.chance()["recall@5"] == 5 / 23
    few = Pairs.from_each(unit(3, 2), unit(3, 2), torch.arange(3)).chance()
    assert few["recall@1"] == pytest.approx(1 / 3)
    assert few["recall@10"] == few["recall@10_t2i"] == 1


def test_rows_of_all_processes_whatever_their_number():
    shares = [torch.arange(6).reshape(3, 2), torch.arange(100, 102).reshape(1, 2)]

    def all_gather(x):  # as if of two processes, this the first
        if x.ndim == 0:
            return torch.tensor([3, 1])
        other = torch.zeros_like(x)
        other[:1] = shares[1]
        return torch.stack([x, other])

    found = gather_rows(types.SimpleNamespace(all_gather=all_gather), shares[0])
    assert torch.equal(found, torch.cat(shares))
    alone = types.SimpleNamespace(all_gather=lambda x: x)
    assert torch.equal(gather_rows(alone, shares[0]), shares[0])


def test_times_are_uniform_or_none():
    noise = SeededNoise(0, range(4000))
    assert module().random_times(SeededNoise(0, range(5))).tolist() == [0] * 5
    t = module(Cosine(20)).random_times(noise)
    counts = t.bincount(minlength=21)
    assert counts[0] == 0
    assert counts[1:].min() > 130
    share = (module(Cosine(20), clean=0.25).random_times(noise) == 0).double().mean()
    assert abs(share - 0.25) < 0.04


def test_clean_pictures_are_not_noised():
    x_0, eps = torch.randn(3, 3, 8, 8), torch.randn(3, 3, 8, 8)
    assert torch.equal(module().diffuse(x_0, torch.zeros(3).long(), lambda _: eps), x_0)
    t = torch.tensor([0, 5, 20])
    x_t = module(Cosine(20)).diffuse(x_0, t, lambda _: eps)
    assert torch.equal(x_t[0], x_0[0])
    alpha, sigma = (v.float().reshape(-1, 1, 1, 1) for v in (Cosine(20).alpha, Cosine(20).sigma))
    torch.testing.assert_close(x_t, alpha[t] * x_0 + sigma[t] * eps)


def test_training_says_how_it_goes(contrasted):
    for kind in ("noisy", "clean"):
        folder = contrasted.folder / kind
        assert len(logged(folder, "train/loss")) == 2
        assert all(0 <= v <= 1 for v in logged(folder, "train/accuracy"))
        assert bool(logged(folder, "train/loss_q1")) == (kind == "noisy")
        assert not (folder / "samples").exists()


@pytest.mark.slow
def test_it_learns_what_the_captions_say(contrast):
    """Six captions of sixty pictures: all are found, where there is not much noise."""
    flags = ["--trainer.max_steps=350", "--trainer.val_check_interval=350", "--data.batch_size=24"]
    flags += ["--model.network.text=captioned.Bag", "--model.network.text.rows=1024"]
    flags += ["--model.network.image.width=32"]
    contrast("fit", "--config", "clip.yaml", *flags)
    folder = contrast.folder / "run"
    assert logged(folder, "val/recall@1_q1")[-1] > 0.9
    assert logged(folder, "val/recall@1_q1")[-1] > logged(folder, "val/recall@1_q4")[-1] + 0.1
    assert logged(folder, "val/recall@1")[-1] == pytest.approx(
        sum(logged(folder, f"val/recall@1_q{i}")[-1] for i in (1, 2, 3, 4)) / 4
    )


def test_a_checkpoint_says_what_rebuilds_it_and_what_it_was_trained_on(contrasted):
    saved = torch.load(checkpoint(contrasted), weights_only=True)
    assert (saved["data"]["name"], saved["data"]["shape"]) == ("Captioned", [3, 8, 8])
    module = Contrastive.load_from_checkpoint(checkpoint(contrasted))
    assert module.process.T == 20
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][name])
    assert Contrastive.load_from_checkpoint(checkpoint(contrasted, "clean")).process is None


def test_a_resumed_run_ends_in_the_same_weights(contrast, same):
    fit = ("fit", "--config", "clip.yaml")
    contrast(*fit, "--trainer.default_root_dir=whole")
    contrast(*fit, "--trainer.max_steps=2")
    contrast(*fit, "--ckpt_path=last")
    one, other = contrast.load(), contrast.load("whole/checkpoints/last.ckpt")
    for key in ("state_dict", "raw_state_dict", "optimizer_states", "global_step"):
        assert same(one[key], other[key]), key


def test_validation_is_over_the_whole_split_at_fixed_times_and_noise(contrasted, contrast):
    contrast(
        "validate",
        "--trust",
        "--ckpt_path",
        checkpoint(contrasted),
        "--trainer.default_root_dir=run",
    )
    module = Contrastive.load_from_checkpoint(checkpoint(contrasted)).eval()
    data, found = Captioned(), []
    with torch.no_grad():
        for i, time in enumerate((3, 8, 13, 18)):
            f, g, texts = [], [], []
            for k, batch in enumerate(data.batches("val", 8)):
                t = torch.full((len(batch["image"]),), time)
                rows = range(k << 32, (k << 32) + len(t))
                noise = SeededNoise(0, rows, use=Use.EVALUATION)
                eps = [noise(batch["image"]) for _ in range(i + 1)][i]
                x_t = module.process.diffuse(batch["image"], t, eps)
                f.append(module.network.embed_image(x_t, t))
                g.append(module.network.embed_text(module.network.text.read(batch["text"])))
                texts += batch["text"]
            pairs = Pairs.from_each(torch.cat(f), torch.cat(g), numbers(texts))
            found.append({**brute(pairs), "loss": pairs.figures(module.network.scale)["loss"]})
    folder = contrast.folder / "run"
    for name, value in retrieval.mean(found).items():
        assert logged(folder, f"val/{name}")[0] == pytest.approx(value, abs=1e-5), name
    for i in range(4):
        value = logged(folder, f"val/recall@1_q{i + 1}")[0]
        assert value == pytest.approx(found[i]["recall@1"], abs=1e-6)


@pytest.mark.parametrize("kind", ["noisy", "clean"])
def test_a_test_writes_what_is_found(contrasted, contrast, kind):
    place = "--trainer.default_root_dir=run"
    contrast("test", "--trust", "--ckpt_path", checkpoint(contrasted, kind), place)
    run = contrast.folder / "run"
    record = json.loads((run / "retrieval.json").read_text())
    noisy = kind == "noisy"
    assert record["t"] == ([1, 3, 6, 8, 10, 13, 15, 18, 20] if noisy else [0])
    assert (record["n"], record["texts"]) == (60, 6)
    assert record["chance"]["recall@1"] == pytest.approx(1 / 6)
    assert record["T"] == (20 if noisy else None)
    assert record["data"]["name"] == "Captioned"
    for name, values in record["by_time"].items():
        assert record["figures"][name] == pytest.approx(sum(values) / len(values))
        assert logged(run, f"test/{name}")[0] == pytest.approx(record["figures"][name], abs=1e-6)
    if noisy:
        snr = torch.tensor(record["log_snr"], dtype=torch.float64).exp()
        ratio = Cosine(20).alpha[record["t"]] / Cosine(20).sigma[record["t"]]
        torch.testing.assert_close(snr, ratio**2)
    else:
        assert record["log_snr"] is None
    from PIL import Image

    assert Image.open(run / "retrieval.png").size[0] > 300
    for name in ("samples.png", "metrics.json", "likelihood.json"):
        assert not (run / name).exists()


def test_trained_gives_what_was_trained(contrasted):
    guide = TrainedClip(checkpoint(contrasted))
    module = Contrastive.load_from_checkpoint(checkpoint(contrasted)).eval()
    x, t, texts = torch.randn(3, 3, 8, 8), torch.tensor([1, 10, 20]), ["a red bar", "", "blue"]
    values = guide.read(texts)
    (name,) = values
    assert name.startswith("clip")
    found = guide(x, t, Condition(values))
    logits = module.network(x, t, module.network.text.read(texts))
    torch.testing.assert_close(found[::2], logits.diagonal().detach()[::2])
    assert found[1] == 0  # ∅
    one = guide(x, torch.tensor(7), Condition(values))
    assert torch.equal(one, guide(x, torch.full((3,), 7), Condition(values)))
    assert (guide.shape, guide.process.T, guide.clean) == ((3, 8, 8), 20, False)
    assert not any(p.requires_grad for p in guide.parameters())
    assert not any(m.training for m in guide.modules())
    with pytest.raises(ValueError, match="a CLIP of noisy pictures; expected one"):
        guide.embed_image(x)


def test_it_measures_clean_pictures(contrasted):
    guide = TrainedClip(checkpoint(contrasted, "clean"))
    assert (guide.process, guide.clean) == (None, True)
    x, texts = torch.randn(3, 3, 8, 8), ["a red bar", "blue", "a red bar"]
    with torch.autocast("cpu", torch.bfloat16):
        f, g = guide.embed_image(x), guide.embed_text(texts)
    torch.testing.assert_close(f.norm(dim=1), torch.ones(3))
    assert torch.equal(g[0], g[2])
    score = guide(x, torch.tensor(0), Condition(guide.read(texts)))
    torch.testing.assert_close(score, guide.towers.scale * (f * g).sum(1))
    other = TrainedClip(checkpoint(contrasted))
    assert len({guide.fingerprint, other.fingerprint}) == 2
    assert guide.fingerprint == TrainedClip(checkpoint(contrasted, "clean")).fingerprint


def test_reading_leaves_the_generator_as_it_was(contrasted):
    state = torch.get_rng_state()
    TrainedClip(checkpoint(contrasted))
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_is_a_copy():
    trained = module(Cosine(20))
    guide = FrozenClip(trained.network, trained.process, DataSpec(None, (3, 8, 8)), clean=True)
    assert all(p.requires_grad for p in trained.parameters())
    guide.embed_image(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.ckpt", "nothing.ckpt; expected a file of weights, there is none"),
        ("weights.ckpt", "weights.ckpt; expected a checkpoint of this project"),
        ("diffusion.ckpt", "diffusion.ckpt; expected .*, this one is of Diffusion"),
    ],
)
def test_another_file_is_refused_in_one_line(contrasted, fitted, tmp_path, name, message):
    saved = torch.load(checkpoint(contrasted), weights_only=True)
    torch.save(saved["state_dict"], tmp_path / "weights.ckpt")
    torch.save(fitted.load(), tmp_path / "diffusion.ckpt")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        TrainedClip(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("guidance.scorer.checkpoint: ")


def test_a_clip_is_no_classifier(contrasted):
    with pytest.raises(
        ValueError, match=r"expected a NoisyClassifier's .* this one is of Contrast"
    ):
        Trained(checkpoint(contrasted))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=Digits"], "data: Digits has no texts; expected data with captions"),
        (["--model.crop=-1"], "model.crop: -1; expected at least 0"),
        (["--model.crop=8"], "model.crop: 8; expected less than the sides of the images"),
        (["--model.clean=1"], "model.clean: 1.0; expected 0 ≤ clean < 1"),
        (
            ["--model.process.T=30"],
            "model.network.image.T: 20; expected 30, as the process has it",
        ),
        (
            ["--model.network.image.in_channels=1"],
            "model.network.image.in_channels: 1; expected the 3 of Captioned",
        ),
        (
            ["--model.network.image.image_size=16"],
            "model.network.image.image_size: 16; expected 8, as Captioned is 8 x 8",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_line(contrast, refused, flags, message):
    assert message in refused("fit", "--config", "clip.yaml", *flags)


def test_no_samples_are_drawn(contrasted, contrast, refused):
    line = refused("predict", "--trust", "--ckpt_path", checkpoint(contrasted))
    assert "a Contrastive draws no samples; expected `diffusion test`" in line


def guided(path, **more):
    scorer = {"class_path": "TrainedClip", "init_args": {"checkpoint": path}}
    arguments = {"scale": 3.0, "scorer": scorer, **more}
    guidance = [{"class_path": "Clip", "init_args": arguments}, "Static"]
    return {"model": {"sampler": {"guidance": guidance}}}


@pytest.fixture
def draw(run, tiny):
    """The command line in a folder where tiny.yaml trains a model of captioned pictures."""
    tiny["model"]["network"]["init_args"].update(in_channels=3, num_classes=None)
    tiny["model"]["p_uncond"] = 0.0
    run.write("tiny.yaml", {**tiny, "data": DATA})
    return run


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("noisy", {}),
        ("clean", {"on": "x_0", "shifts": 2}),
        pytest.param("clean", {"on": "x_0", "through": True}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["--trainer.inference_mode=true", "--trainer.precision=bf16-mixed"],
    ],
    ids=["plain", "inference"],
)
def test_a_model_is_guided_by_a_text(contrasted, draw, kind, settings, flags):
    draw.write("guided.yaml", guided(checkpoint(contrasted, kind), **settings))
    draw.fit("--config", "guided.yaml", "--trainer.max_steps=2")
    draw("test", "--trust", "--ckpt_path", draw.last, "--metrics.n=4", *flags)
    record = json.loads((draw.folder / "run/metrics.json").read_text())
    assert record["figures"]["classifier_nfe"] == 3 * (1 + settings.get("shifts", 0))
    assert record["figures"]["nfe"] == 3
    draw("predict", "--trust", "--ckpt_path", draw.last, "--data.samples=2", *flags)
    assert len(list((draw.folder / "run/predictions").glob("0*.png"))) == 2
    saved = draw.load()
    assert not any("scorer" in name or "text" in name for name in saved["state_dict"])
    module = Diffusion.load_from_checkpoint(draw.last)
    one, other = (
        module.generate({"text": [text] * 4}, range(4))
        for text in ("a red bar on the left", "a blue bar on the right")
    )
    assert not torch.allclose(one, other)


def test_a_clip_that_does_not_fit_is_refused_before_training(contrasted, draw, refused):
    draw.write("guided.yaml", guided(checkpoint(contrasted)))
    flags = ("fit", "--config", "tiny.yaml", "--config", "guided.yaml")
    assert refused(*flags, "--model.process.T=30") == (
        "guidance.scorer: it was trained with T = 20; expected the model's process, T = 30"
    )
    assert "Clip needs texts, Digits has none" in refused(
        *flags, "--data=Digits", "--model.network.in_channels=1"
    )
    draw.write("missing.yaml", guided("runs/none/last.ckpt"))
    assert refused(*flags, "--config", "missing.yaml") == (
        "guidance.scorer.checkpoint: runs/none/last.ckpt; expected a file of weights, there is none"
    )
