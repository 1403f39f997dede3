import copy
import json
import math
from types import SimpleNamespace

import facts
import pytest
import torch
import torch.nn.functional as F
from tiny import TINY

from diffusion.networks import Beam, CaptionNetwork, ViT
from diffusion.systems.captioning.captioner import Captioner
from diffusion.systems.captioning.hallucination import Tally, counts
from diffusion.systems.captioning.trained_tower import TrainedTower
from diffusion.systems.captioning.writing import counted, nll
from diffusion.systems.contrastive import Contrastive

ALONE = SimpleNamespace(reduce=lambda x, reduce_op: x)


@pytest.fixture(scope="module")
def trained(once):
    """A captioner of the bars, trained until it knows all six captions."""
    with once("captioner") as made:
        config = {**copy.deepcopy(TINY), **facts.config()}
        steps = {"max_steps": 150, "limit_val_batches": 1.0, "limit_test_batches": 1.0}
        config["trainer"].update(steps)
        made.write("bars.yaml", config)
        made("fit", "--config", "bars.yaml")
        made("test", "--trust", "--ckpt_path", "run/checkpoints/last.ckpt")
    return made


def loaded(trained):
    return Captioner.load_from_checkpoint(trained.last, trust=True).eval()


@pytest.mark.slow
def test_captions_of_an_overfitted_set_come_back_exactly(trained):
    data, module = facts.Bars(copies=2), loaded(trained)
    data.setup("fit")
    batch = data.train_set.__getitems__(range(len(data.train_set)))
    written, log_p = module.captions(data.normalize(batch["image"]), no_noise())
    assert written == batch["text"]
    tokens = module.read(batch["text"])
    own = -nll(module.network(data.normalize(batch["image"]), tokens)[0], tokens).sum(1)
    torch.testing.assert_close(log_p, own, rtol=1e-3, atol=1e-3)
    wide = module.captions(data.normalize(batch["image"]), no_noise(), Beam(3))[1]
    assert (wide >= log_p - 1e-4).all()


def no_noise():
    return SimpleNamespace(uniform=None)


@pytest.mark.slow
def test_a_test_says_how_much_is_true(trained):
    record = json.loads((trained.folder / "run/captioner.json").read_text())
    figures = record["figures"]
    assert (trained.folder / "run/captioner.png").is_file()
    for kind in ("colour", "place"):
        assert figures[f"{kind}_precision"] == figures[f"{kind}_recall"] > 0.9
        assert figures[f"{kind}_precision_ceiling"] == figures[f"{kind}_recall_ceiling"] == 1
        assert figures[f"{kind}_precision_floor"] < 0.8
        total = figures[f"{kind}_precision"] + figures[f"{kind}_hallucination"]
        assert total == pytest.approx(1)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["perplexity_floor"] > 1.1 * figures["perplexity"]
    assert figures["token_accuracy_floor"] < figures["token_accuracy"] <= 1
    assert len(record["captions"]) == 12


def test_what_is_counted():
    """By hand: 2 tokens beside 3 logits each, and padding."""
    logits = torch.tensor([[[0.0, 1, 0], [2, 0, 0]], [[0, 0, 3], [9, 9, 9]]])
    tokens = torch.tensor([[1, 2], [2, -1]])
    e = math.e
    losses = [math.log((e + 2) / e), math.log(e**2 + 2), math.log((e**3 + 2) / e**3)]
    found = counted(logits, tokens)
    assert found.tolist() == pytest.approx([sum(losses), 2, 3])
    assert nll(logits, tokens)[1, 1] == 0


def test_facts_are_counted():
    a, b, none = frozenset("a"), frozenset("ab"), frozenset()
    pairs = [({"x": b}, {"x": a, "y": a}), ({"x": a, "y": a}, {"x": b, "y": none})]
    assert counts(pairs) == {"x": [2, 3, 3], "y": [0, 1, 1]}


def test_precision_recall_and_hallucination():
    data = facts.Bars(copies=1)
    data.setup("fit")
    red, blue = "a red bar on the left", "a blue bar on the right"
    tally = Tally(data, torch.device("cpu"))
    tally.add(["red blue left", ""], [blue, red], [red, blue])
    tally.add(["red"], [blue], ["of no picture"])
    found = tally.figures(ALONE)
    assert (found["colour_precision"], found["colour_recall"]) == (0.5, 0.5)
    assert (found["place_precision"], found["place_recall"]) == (1, 0.5)
    assert found["colour_hallucination"] == 0.5
    assert found["colour_precision_floor"] == found["place_recall_floor"] == 0
    assert found["colour_precision_ceiling"] == found["place_recall_ceiling"] == 1


def module(**kwargs):
    torch.manual_seed(0)
    made = CaptionNetwork(ViT(8, 3, 4, 16, 1, 2, 6), 16, 1, 1, 2, 16, 300, dropout=0.0)
    return Captioner(made, optimizer=torch.optim.SGD, **kwargs)


def test_the_loss_is_cocas(monkeypatch):
    made = module(caption=2.0, contrastive=0.5)
    data = facts.Bars(copies=1)
    data.setup("fit")
    batch = data.train_set.__getitems__(range(6))
    batch = {**batch, "image": data.normalize(batch["image"])}
    monkeypatch.setattr(made, "step_noise", lambda *_: None)
    monkeypatch.setattr(made, "all_gather", lambda x, sync_grads=False: x)
    monkeypatch.setattr(Captioner, "global_rank", 0)
    tokens = made.read(batch["text"])
    logits, f, g = made.network(batch["image"], tokens)
    there = tokens >= 0
    caption = F.cross_entropy(logits[there], tokens[there])
    pairs = made.network.scale * f @ g.T
    contrastive = sum(F.cross_entropy(x, torch.arange(6)) for x in (pairs, pairs.T)) / 2
    loss = made.training_step(batch, 0)["loss"]
    torch.testing.assert_close(loss, 2 * caption + 0.5 * contrastive)


@pytest.mark.slow
def test_fine_tuning_goes_on_with_the_words_there_are(trained, run, tiny):
    """Then adds those of its own captions; no token has moved."""
    config = {**tiny, **facts.config()}
    config["model"]["init_args"]["start"] = trained.last
    config["trainer"]["max_steps"] = 1
    run.write("more.yaml", config)
    run("fit", "--config", "more.yaml")
    before = loaded(trained).network.vocabulary.words
    after = Captioner.load_from_checkpoint(run.last, trust=True).network.vocabulary.words
    assert " bar" in before
    assert after == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.caption", "0"], "model.caption: 0"),
        pytest.param(
            ["--model.contrastive", "-1"], "model.contrastive: -1", marks=pytest.mark.slow
        ),
        pytest.param(["--model.crop", "8"], "model.crop: 8", marks=pytest.mark.slow),
        (["--data", "Digits"], "has no texts"),
        pytest.param(
            ["--model.network.image.image_size", "16"],
            "model.network.image.image_size: 16",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--model.search.class_path", "Beam", "--model.search.width", "0"],
            "width: 0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_wrong_is_said_before_training(run, refused, tiny, flags, words):
    run.write("bars.yaml", {**tiny, **facts.config()})
    assert words in refused("fit", "--config", "bars.yaml", *flags)


@pytest.mark.slow
def test_a_tower_of_a_clip_is_fixed_and_not_saved(once):
    with once("clip") as made:
        text = {"class_path": "TextTransformer", "init_args": {"width": 16, "depth": 1, "heads": 2}}
        image = facts.config()["model"]["init_args"]["network"]["init_args"]["image"]
        towers = {"class_path": "Towers", "init_args": {"image": image, "text": text}}
        clip = {"class_path": "Contrastive", "init_args": {"network": towers}}
        data = {"class_path": "captioned.Captioned", "init_args": {"batch_size": 8}}
        made.write("clip.yaml", {**copy.deepcopy(TINY), "model": clip, "data": data})
        made("fit", "--config", "clip.yaml")
    tower = TrainedTower(made.last, trust=True).train()
    network = CaptionNetwork(tower, 16, 1, 1, 2, 16, 300)
    assert not any(name.startswith("image.tower.base.") for name in network.state_dict())
    assert not any(p.requires_grad for p in tower.parameters())
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    own = Contrastive.load_from_checkpoint(made.last, trust=True).eval().network.image
    vector, states = own.look(x, t)
    f, _ = network.look(x)
    torch.testing.assert_close(f, F.normalize(vector, dim=1))
    torch.testing.assert_close(tower.look(x, t)[1], states)
