import copy
import csv
import json
import math
import types

import pytest
import torch
import torch.nn.functional as F
from tiny import TINY
from torch import nn

from diffusion.condition import Condition
from diffusion.data import Digits
from diffusion.networks import ClassifierNetwork
from diffusion.noise import SeededNoise, Use
from diffusion.process import Cosine, Linear
from diffusion.spec import DataSpec
from diffusion.systems import accuracy
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Frozen, Trained
from diffusion.systems.noisy_classifier import (
    NoisyClassifier,
    log_prob,
    random_crop,
)

CLASSIFIER = {
    "class_path": "NoisyClassifier",
    "init_args": {
        "network": {
            "class_path": "ClassifierNetwork",
            "init_args": {
                "image_size": 8,
                "in_channels": 1,
                "num_classes": 10,
                "channels": 8,
                "multipliers": [1],
                "attention": [],
                "blocks": 1,
                "head_width": 8,
                "groups": 4,
                "dropout": 0.1,
            },
        },
        "process": {"class_path": "Cosine", "init_args": {"T": 20}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0e-2}},
        "crop": 1,
    },
}
KEYS = ("state_dict", "raw_state_dict", "optimizer_states", "lr_schedulers", "global_step")


def of_classifier(tiny):
    return {**tiny, "model": copy.deepcopy(CLASSIFIER)}


@pytest.fixture
def classify(run, tiny):
    """The command line in a folder where classifier.yaml trains a tiny classifier."""
    run.write("classifier.yaml", of_classifier(tiny))
    return run


@pytest.fixture(scope="module")
def classified(once):
    """A classifier trained for four steps, to be read only."""
    with once("classified") as made:
        made.write("classifier.yaml", of_classifier(TINY))
        made("fit", "--config", "classifier.yaml")
    return made


def guided(checkpoint, **more):
    trained = {"class_path": "Trained", "init_args": {"checkpoint": str(checkpoint)}}
    arguments = {"scale": 2.0, "classifier": trained, **more}
    guidance = [{"class_path": "Classifier", "init_args": arguments}, "Static"]
    return {"model": {"sampler": {"guidance": guidance}}}


def rows(folder):
    return [
        row
        for path in folder.glob("csv/version_*/metrics.csv")
        for row in csv.DictReader(path.open())
    ]


def logged(folder, name):
    return [float(row[name]) for row in rows(folder) if row.get(name)]


class Toy(nn.Module):
    """Logits of two classes of 4 × 4 pictures, whose contrast depends on t."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(17, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x_t, t):
        return self.layers(torch.cat([x_t.flatten(1), t[:, None] / 1000], 1))


def noisy_classifier(network=None, **more):
    return NoisyClassifier(network or Toy(), Linear(), torch.optim.AdamW, **more)


def test_loss_is_the_cross_entropy_of_the_noisy_image():
    module = noisy_classifier()
    x_0, eps, label = torch.randn(6, 1, 4, 4), torch.randn(6, 1, 4, 4), torch.arange(6) % 2
    t = torch.tensor([1, 2, 100, 500, 900, 1000])
    bars = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0).float()
    bar = bars[t - 1].reshape(-1, 1, 1, 1)
    logits = module.network(bar.sqrt() * x_0 + (1 - bar).sqrt() * eps, t)
    losses, hits = module.losses(x_0, label, t, eps)
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(losses, -p[torch.arange(6), label].log())
    assert hits.tolist() == [(a > b) == (y == 0) for (a, b), y in zip(p.tolist(), label.tolist())]
    torch.testing.assert_close(
        log_prob(module.network, x_0, t, label),
        -F.cross_entropy(module.network(x_0, t), label, reduction="none"),
    )
    null = torch.tensor([0, 1, 2, -1, 7, 1])
    zero = log_prob(module.network, x_0, t, null) == 0
    assert zero.tolist() == [False, False, True, True, True, False]


def test_learns_the_bayes_classifier_at_every_time():
    """x_0 ~ N(± m, c² I): the best accuracy at t is Φ(α |m| / √(α² c² + σ²))."""
    torch.manual_seed(0)
    module, it, size, std = noisy_classifier(), Linear(), 0.4, 0.5
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)

    def draw(n):
        label = torch.arange(n) % 2
        sign = (2 * label - 1).reshape(-1, 1, 1, 1)
        return size * sign + std * torch.randn(n, 1, 4, 4), label

    for _ in range(300):
        x_0, label = draw(512)
        t = torch.randint(1, 1001, (512,))
        losses, _ = module.losses(x_0, label, t, torch.randn_like(x_0))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    for time in (1, 250, 500, 1000):
        x_0, label = draw(4000)
        with torch.no_grad():
            _, hits = module.losses(x_0, label, torch.full((4000,), time), torch.randn_like(x_0))
        alpha, sigma = it.alpha[time].item(), it.sigma[time].item()
        z = alpha * size * 4 / math.hypot(alpha * std, sigma)
        best = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        assert abs(hits.double().mean().item() - best) < 0.03, time
    assert best < 0.51


def test_random_crop_is_a_window_of_the_mirrored_image():
    x = torch.randn(64, 2, 5, 6)
    moved = random_crop(x, 2, SeededNoise(0, range(64)))
    assert moved.shape == x.shape
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    found = set()
    for image, wide in zip(moved, padded):
        places = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(wide[:, i : i + 5, j : j + 6], image)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 15  # of 25, each sample its own
    assert {i for i, _ in found} == {j for _, j in found} == set(range(5))


def test_training_says_how_it_goes(classified):
    folder = classified.folder / "run"
    for name in ("train/loss", "train/accuracy", "train/grad_norm", "train/loss_q1"):
        assert len(logged(folder, name)) == 2, name
    assert all(0 <= v <= 1 for v in logged(folder, "train/accuracy"))
    names = {name for row in rows(folder) for name in row}
    assert {f"train/accuracy_q{i}" for i in (1, 2, 3, 4)} <= names
    assert not (folder / "samples").exists()


def test_train_accuracy_is_that_of_the_batches(classify, extra):
    import lightning as L

    class Watch(L.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, module, outputs, *_):
            self.seen.append((outputs["hits"], (outputs["t"] - 1) * 4 // 20))

    watch = extra(Watch())
    classify("fit", "--config", "classifier.yaml")
    for k, value in enumerate(logged(classify.folder / "run", "train/accuracy")):
        hits = torch.cat([h for h, _ in watch.seen[2 * k : 2 * k + 2]])
        assert abs(hits.double().mean().item() - value) < 1e-6
    hits, quarter = (torch.cat(x) for x in zip(*watch.seen[2:4]))
    for i in quarter.unique().tolist():
        last = logged(classify.folder / "run", f"train/accuracy_q{i + 1}")[-1]
        assert abs(hits[quarter == i].double().mean().item() - last) < 1e-6


def test_a_checkpoint_says_what_rebuilds_it_and_what_it_was_trained_on(classified):
    saved = classified.load()
    assert saved["data"] == {
        "name": "Digits",
        "shape": [1, 8, 8],
        "num_classes": 10,
        "classes": list("0123456789"),
        "levels": 17,
        "captioned": False,
    }
    module = NoisyClassifier.load_from_checkpoint(classified.last)
    assert module.process.T == 20
    assert module.crop == 1
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][name])


@pytest.mark.parametrize("flags", [[], ["--trainer.accumulate_grad_batches=2"]])
def test_a_resumed_run_ends_in_the_same_weights(classify, same, flags):
    fit = ("fit", "--config", "classifier.yaml", *flags)
    classify(*fit, "--trainer.default_root_dir=whole")
    classify(*fit, "--trainer.max_steps=2")
    classify(*fit, "--ckpt_path=last")
    one, other = classify.load(), classify.load("whole/checkpoints/last.ckpt")
    for key in KEYS:
        assert same(one[key], other[key]), key


def test_validation_is_a_plain_sum_over_fixed_times_and_noise(classified, classify, monkeypatch):
    monkeypatch.chdir(classify.folder)
    for name in ("one", "two"):
        place = f"--trainer.default_root_dir={name}"
        classify("validate", "--ckpt_path", classified.last, place)
    texts = [
        (classify.folder / n / "csv/version_0/metrics.csv").read_text() for n in ("one", "two")
    ]
    assert texts[0] == texts[1]
    module, data = NoisyClassifier.load_from_checkpoint(classified.last).eval(), Digits()
    batches = [batch for batch, _ in zip(data.batches("val", 8), range(2))]
    # Sixteen images at times that fill 1 … 20 evenly, whatever their number.
    t = 1 + (((torch.arange(16).double() + 0.5) * (5**0.5 - 1) / 2) % 1 * 20).long()
    label = torch.cat([batch["label"] for batch in batches])
    numbers = [range(k << 32, (k << 32) + 8) for k in range(2)]
    noise = [SeededNoise(0, n, use=Use.EVALUATION).normal((1, 8, 8)) for n in numbers]
    with torch.no_grad():
        x_0 = torch.cat([batch["image"] for batch in batches])
        losses, hits = module.losses(x_0, label, t, torch.cat(noise))
    found = {k: logged(classify.folder / "one", f"val/{k}")[0] for k in ("loss", "accuracy")}
    assert abs(found["loss"] - losses.mean().item()) < 1e-5
    assert abs(found["accuracy"] - hits.double().mean().item()) < 1e-6
    for i in range(4):
        of = hits[(t > 5 * i) & (t <= 5 * i + 5)].double().mean().item()
        assert abs(logged(classify.folder / "one", f"val/accuracy_q{i + 1}")[0] - of) < 1e-6


def test_a_test_writes_the_accuracy_by_time(classified, classify):
    classify("test", "--ckpt_path", classified.last, "--trainer.limit_test_batches=5")
    run = classify.folder / "run"
    record = json.loads((run / "classifier.json").read_text())
    assert record["t"] == list(range(1, 21))
    assert record["n"] == [10] * 20  # five times 40 images
    assert record["data"]["name"] == "Digits"
    assert record["chance"] == 0.1
    alpha, sigma = Cosine(20).alpha[1:], Cosine(20).sigma[1:]
    snr = torch.tensor(record["log_snr"], dtype=torch.float64).exp()
    torch.testing.assert_close(snr, (alpha / sigma) ** 2)
    mean = sum(record["accuracy"]) / 20
    assert abs(record["figures"]["accuracy"] - mean) < 1e-9
    first = sum(record["accuracy"][:5]) / 5
    assert abs(record["figures"]["accuracy_q1"] - first) < 1e-9
    p = record["accuracy"][3]
    assert abs(record["standard_error"][3] - math.sqrt(p * (1 - p) / 10)) < 1e-9
    assert abs(logged(run, "test/accuracy")[0] - mean) < 1e-6
    from PIL import Image

    assert Image.open(run / "accuracy.png").size[0] > 300
    for name in ("samples.png", "metrics.json", "likelihood.json"):
        assert not (run / name).exists()
    classify("test", "--ckpt_path", classified.last)
    assert len(list(run.glob("classifier*.json"))) == 2  # the earlier one is kept


def test_a_tally_is_over_samples_not_batches():
    tally = accuracy.AccuracyTally(4, torch.device("cpu"))
    strategy = types.SimpleNamespace(reduce=lambda x, reduce_op: 2 * x)  # as if of two processes
    tally.add(torch.tensor([0, 0, 2]), torch.tensor([1.0, 3.0, 5.0]), torch.tensor([1, 0, 1]) > 0)
    tally.add(torch.tensor([2]), torch.tensor([7.0]), torch.tensor([False]))
    loss, hits, counts = tally.means(strategy)
    assert counts.tolist() == [4, 0, 4, 0]
    assert loss[[0, 2]].tolist() == [2, 6]
    assert hits[[0, 2]].tolist() == [0.5, 0.5]
    figures = accuracy.by_quarter("a", hits, counts)
    assert figures == {"a": 0.5, "a_q1": 0.5, "a_q3": 0.5}
    assert accuracy.quarters(torch.tensor([1, 250, 251, 1000]), 1000).tolist() == [0, 0, 1, 3]


def test_no_samples_are_drawn_and_nothing_is_left_behind(classified, classify, refused):
    line = refused("predict", "--ckpt_path", classified.last)
    assert "a NoisyClassifier draws no samples; expected `diffusion test`" in line
    assert not (classify.folder / "run/predictions").exists()


def test_trained_gives_what_was_trained(classified):
    guide = Trained(classified.last)
    module = NoisyClassifier.load_from_checkpoint(classified.last).eval()
    x_t, label = torch.randn(5, 1, 8, 8), torch.tensor([0, 3, 9, 10, -1])
    t = torch.tensor([1, 2, 10, 19, 20])
    found = guide(x_t, t, Condition({"label": label}))
    torch.testing.assert_close(found[:3], log_prob(module.network, x_t, t, label)[:3])
    assert found[3:].tolist() == [0, 0]
    one = guide(x_t, torch.tensor(7), Condition({"label": label}))
    same = guide(x_t, torch.full((5,), 7), Condition({"label": label}))
    assert torch.equal(one, same)
    assert guide.spec == Digits().spec
    assert not any(p.requires_grad for p in guide.parameters())
    assert not any(m.training for m in guide.modules())
    assert {p.dtype for p in guide.parameters()} == {torch.float32}
    raw = classified.load()["raw_state_dict"]  # not these weights
    assert any(not torch.equal(raw[k], v) for k, v in module.state_dict().items())


def test_reading_leaves_the_generator_as_it_was(classified):
    state = torch.get_rng_state()
    Trained(classified.last)
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_is_a_copy():
    module = noisy_classifier()
    guide = Frozen(module.network, module.process, DataSpec(None, (1, 4, 4), 2))
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module.network.layers[0].weight.add_(1)
    x_t, t, label = torch.randn(3, 1, 4, 4), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 1])
    assert not torch.equal(
        guide(x_t, t, Condition({"label": label})), log_prob(module.network, x_t, t, label)
    )
    with pytest.raises(ValueError, match="expected what the classifier was trained on"):
        Frozen(module.network, module.process, module.spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.ckpt", "nothing.ckpt; expected a file of weights, there is none"),
        ("cut.ckpt", "cut.ckpt; expected .*, it is cut short or something else"),
        ("text.ckpt", "text.ckpt; expected .*, it is cut short or something else"),
        ("weights.ckpt", "weights.ckpt; expected a checkpoint of this project"),
        ("python.ckpt", "python.ckpt; expected one made by `diffusion fit`"),
        ("diffusion.ckpt", "diffusion.ckpt; expected .*, this one is of Diffusion"),
    ],
)
def test_another_file_is_refused_in_one_line(classified, fitted, tmp_path, name, message):
    saved = classified.load()
    torch.save(saved["state_dict"], tmp_path / "weights.ckpt")
    torch.save({"state_dict": saved["state_dict"]}, tmp_path / "python.ckpt")
    torch.save(fitted.load(), tmp_path / "diffusion.ckpt")
    whole = (classified.folder / "run/checkpoints/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Trained(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("guidance.classifier.checkpoint: ")


@pytest.mark.slow
def test_a_guided_models_checkpoint_has_no_classifier_in_it(classified, fitted, run):
    run.write("guided.yaml", guided(classified.last))
    flags = ["--config", "guided.yaml", "--samples.every_n_steps=2", "--metrics.n=4"]
    run.fit(*flags)
    saved, plain = run.load(), fitted.load()
    assert saved["state_dict"].keys() == plain["state_dict"].keys()
    assert saved["raw_state_dict"].keys() == plain["raw_state_dict"].keys()
    assert len(saved["optimizer_states"][0]["state"]) == len(plain["optimizer_states"][0]["state"])
    for key, value in plain["raw_state_dict"].items():  # nor is training another
        assert torch.equal(saved["raw_state_dict"][key], value), key
    assert "Trained" in saved["config"]
    run("test", "--ckpt_path", "run/checkpoints/last.ckpt")
    assert (run.folder / "run/samples.png").exists()
    module = Diffusion.load_from_checkpoint(run.last)
    assert not any("classifier" in name for name, _ in module.named_parameters())
    label = torch.arange(4)
    images = module.generate({"label": label}, range(4))
    module.sampler.guidance[0].scale = 0.0
    plain = module.generate({"label": label}, range(4))
    assert not torch.allclose(images, plain)
    run("predict", "--ckpt_path", run.last, "--data.samples=2", "--data.batch_size=2")
    assert len(list((run.folder / "run/predictions").glob("0*.png"))) == 2


def test_a_network_without_labels_is_guided_by_them(classified, run, tiny):
    del tiny["model"]["network"]["init_args"]["num_classes"]
    tiny["model"]["p_uncond"] = 0.0
    run.write("tiny.yaml", tiny)
    run.write("guided.yaml", guided(classified.last, scale=50.0))
    run.fit("--config", "guided.yaml")
    module = Diffusion.load_from_checkpoint(run.last)
    one, other = (module.generate({"label": torch.full((4,), y)}, range(4)) for y in (0, 7))
    assert not torch.allclose(one, other)


def test_a_classifier_that_does_not_fit_is_refused_before_training(classified, run, refused):
    run.write("guided.yaml", guided(classified.last))
    flags = ("fit", "--config", "tiny.yaml", "--config", "guided.yaml")
    line = refused(*flags, "--model.process.T=30")
    assert line == (
        "guidance.classifier: it was trained with T = 20; expected the model's process, T = 30"
    )
    line = refused(*flags, "--model.process=Linear", "--model.process.T=20")
    assert line.startswith("guidance.classifier: it was trained with α = ")
    run.write("missing.yaml", guided("runs/none/last.ckpt"))
    line = refused(*flags, "--config", "missing.yaml")
    assert line == (
        "guidance.classifier.checkpoint: runs/none/last.ckpt; expected a file of weights, there is "
        "none"
    )
    run.write("scale.yaml", guided(classified.last, scale=math.nan))
    assert refused(*flags, "--config", "scale.yaml") == (
        "guidance.scale: nan; expected a finite number"
    )
    assert not (run.folder / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.crop=-1"], "model.crop: -1; expected at least 0"),
        (["--model.crop=8"], "model.crop: 8; expected less than the sides of the images"),
        (
            ["--model.network.num_classes=12"],
            "model.network.num_classes: 12; expected the 10 classes of Digits",
        ),
        (
            ["--model.network.image_size=16"],
            "model.network.image_size: 16; expected 8, as Digits is 8 x 8",
        ),
        (["--data=SwissRoll"], "data: SwissRoll has no labels; expected data with classes"),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_line(classify, refused, flags, message):
    assert message in refused("fit", "--config", "classifier.yaml", *flags)


def test_a_classifier_of_points_may_be_anything_that_knows_its_classes():
    spec = DataSpec("Points", (2,), 2)
    points = types.SimpleNamespace(spec=spec, specs=[spec])
    NoisyClassifier(Toy(), Cosine(20)).check(points)  # pyright: ignore
    with pytest.raises(ValueError, match=r"model\.crop: 1; expected less than the sides"):
        NoisyClassifier(Toy(), Cosine(20), crop=1).check(points)  # pyright: ignore


def test_the_real_network_learns_in_float32_outside_autocast():
    network = ClassifierNetwork(8, 1, 10, [1], [], 8, channels=8, blocks=1, groups=4)
    module = NoisyClassifier(network, Cosine(20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = module.losses(
            torch.randn(4, 1, 8, 8), torch.arange(4), torch.arange(4) + 1, torch.randn(4, 1, 8, 8)
        )
    assert losses.dtype == torch.float32
    losses.mean().backward()
    assert any(p.grad.abs().sum() > 0 for p in network.parameters() if p.grad is not None)
