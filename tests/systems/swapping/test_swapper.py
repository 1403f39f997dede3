import copy
import json
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image
from swapping import Colours, encoder, swapper

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.monitor import Monitor
from diffusion.common.hashing import weights_digest
from diffusion.common.schedules import Warmup
from diffusion.data import Digits
from diffusion.networks import SwapGenerator
from diffusion.networks.efficientnet_lite0 import Lite0
from diffusion.networks.identity import projected_discriminator
from diffusion.systems.averages import EMA
from diffusion.systems.swapping.swapper import Swapper


@pytest.fixture(autouse=True)
def lite0(monkeypatch):
    """A network that is not fetched, but always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Lite0().eval().requires_grad_(False)
    monkeypatch.setattr(projected_discriminator, "load_lite0", lambda _: net)


def trainer(folder, steps, ema=None, **options):
    given = {"limit_val_batches": 0, "logger": False, **options}
    return L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        use_distributed_sampler=False,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Checkpoint(str(folder), every_n_steps=2, keep=-1), ema or EMA(0.9), Monitor()],
        **given,
    )


def fit(folder, steps, resume=None, seed=0, **options):
    torch.manual_seed(seed)
    system, ema = swapper(**options), EMA(0.9)
    trainer(folder, steps, ema).fit(system, Colours(batch_size=6), ckpt_path=resume)
    return system, ema


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit(tmp_path, same):
    _, ema = fit(tmp_path / "whole", 4, warmup=1)
    fit(tmp_path / "parts", 2, warmup=1)
    fit(tmp_path / "parts", 4, tmp_path / "parts/step_0000002.ckpt", seed=1, warmup=1)
    whole, parts = (
        torch.load(tmp_path / f"{name}/step_0000004.ckpt", weights_only=True)
        for name in ("whole", "parts")
    )
    for key in ("state_dict", "raw_state_dict", "ema_steps", "optimizer_states", "loops"):
        assert same(whole[key], parts[key]), key
    assert ema.steps == whole["global_step"] == 4  # a round of both is one step
    assert len(whole["optimizer_states"]) == 2
    assert not any("mix." in name for name in whole["state_dict"])  # no encoder, but its digest
    assert any(name.startswith("encoder.base_") for name in whole["state_dict"])


def test_training_starts_from_the_weights_of_another_run(tmp_path, same):
    """Of G and of D, the averaged ones; both optimizers, averages and steps start anew."""
    fit(tmp_path / "first", 2, warmup=1)
    file = tmp_path / "first/step_0000002.ckpt"
    saved = torch.load(file, weights_only=True)
    assert len(saved["optimizer_states"]) == 2
    seen = {}

    class Watch(L.Callback):
        def on_train_start(self, trainer, pl_module):
            seen["weights"] = copy.deepcopy(dict(pl_module.state_dict()))
            seen["states"] = [len(one.state) for one in trainer.optimizers]
            seen["step"] = trainer.global_step

    torch.manual_seed(5)
    system, made = swapper(start=str(file)), trainer(tmp_path / "second", 1)
    made.callbacks.append(Watch())
    made.fit(system, Colours(batch_size=6))
    assert same(seen["weights"], dict(saved["state_dict"]))
    assert not same(dict(saved["state_dict"]), dict(saved["raw_state_dict"]))
    assert (seen["states"], seen["step"]) == ([0, 0], 0)
    assert all(len(one.state) for one in made.optimizers)
    other = swapper(start=str(file))
    other.encoder = encoder(seed=3)
    with pytest.raises(ValueError, match=r"model\.start: .* as model\.encoder, this one"):
        trainer(tmp_path / "third", 1).fit(other, Colours(batch_size=6))


@pytest.mark.parametrize("still", [0, 1])
def test_a_step_of_one_leaves_the_other_alone(tmp_path, still, same):
    """With a rate of 0 for one of them, not even its buffers move."""
    made = []

    def optimizer(parameters):
        made.append(None)
        return torch.optim.Adam(parameters, lr=0.0 if len(made) % 2 != still else 1e-2)

    torch.manual_seed(0)
    system = swapper(optimizer=optimizer)
    parts = [system.network, system.discriminator]
    before = [copy.deepcopy(dict(part.named_parameters())) for part in parts]
    trainer(tmp_path, 2).fit(system, Colours(batch_size=6))
    moved = [
        any(not torch.equal(p, before[k][name]) for name, p in part.named_parameters())
        for k, part in enumerate(parts)
    ]
    assert moved == [bool(still), not still]
    assert all(p.requires_grad for part in parts for p in part.parameters())


def test_the_critic_is_the_same_before_and_after_the_generators_losses(same):
    system = swapper()
    before = copy.deepcopy(system.discriminator.state_dict())
    system.discriminator.eval()
    x = torch.rand(3, 3, 16, 16)
    known = system.discriminator.features(x)
    h, _ = system.generator_losses(x, system.encoder.embed(x), known[-1], True)
    assert same(dict(before), dict(system.discriminator.state_dict()))  # spectral norms, too
    system.discriminator_loss([one.detach() for one in h], known).backward()
    assert all(p.grad is None for p in system.network.parameters())


class Returns(SwapGenerator):
    """Returns the target, made darker by a constant."""

    def forward(self, x, e):
        self.last = x - self.by
        return self.last


@pytest.mark.slow
def test_it_trains_in_lower_precision_with_schedules(tmp_path):
    system = swapper(lr_scheduler=partial(Warmup, warmup=4))
    trainer(tmp_path, 2, precision="bf16-mixed").fit(system, Colours(batch_size=6))
    rates = [o.param_groups[0]["lr"] for o in system.trainer.optimizers]
    assert rates == pytest.approx([2e-3 * 3 / 4] * 2)
    assert all(p.isfinite().all() for p in system.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "left"), [(32.0, 32.0), (4096.0, 1024.0)])
def test_both_learn_in_float16_under_one_scale(tmp_path, scale, left):
    """As 16-mixed has it, and as in float32; a scale too large costs G its first steps alone."""
    moved = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=scale)):
        torch.manual_seed(0)
        system = swapper()
        before = {k: p.detach().clone() for k, p in system.named_parameters()}
        plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if scaler else []
        fitter = trainer(tmp_path / str(bool(scaler)), 6 if scale == 32 else 12, plugins=plugins)
        fitter.fit(system, Colours(batch_size=6))
        after = {k: p - before[k] for k, p in system.named_parameters()}
        parts = [[v for k, v in after.items() if k.startswith(x)] for x in ("network", "discrim")]
        moved.append([torch.cat([v.flatten() for v in part]) for part in parts])
    assert scaler.get_scale() <= left
    (g, d), (half_g, half_d) = moved
    assert torch.cosine_similarity(d, half_d, 0) > 0.85
    assert torch.cosine_similarity(g, half_g, 0) > (0.9 if scale == left else 0.3)


def test_losses_are_those_of_the_formula():
    system = swapper(identity=3.0, features=5.0, reconstruction=7.0).eval()
    system.network = Returns(16, 3, 8, (4, 6, 8, 8), 1)
    x, y = (torch.rand(4, 3, 16, 16) * 2 - 1 for _ in range(2))
    e = system.encoder.embed(y)
    for by in (0.0, 0.25):
        system.network.by = by
        wanted = system.discriminator.features(x)[-1]
        h, terms = system.generator_losses(x, e, wanted, True)
        swapped = system.network.last
        mixed = (swapped.mean((2, 3)) @ system.encoder.base.mix.T).detach()
        cosine = torch.cosine_similarity(mixed, e)
        assert torch.allclose(terms["identity"], 3 * (1 - cosine), atol=1e-5)
        assert torch.allclose(terms["reconstruction"], torch.tensor(7 * by), atol=1e-5)
        assert (terms["features"].abs().max() == 0) == (by == 0)
        assert all(torch.equal(a, b) for a, b in zip(h, system.discriminator.features(swapped)))
        assert torch.allclose(terms["adversarial"], -system.discriminator(h).mean(1), atol=1e-5)
    assert "reconstruction" not in system.generator_losses(x, e, wanted, False)[1]
    maps = [system.discriminator.features(z) for z in (x, y)]
    no, yes = map(system.discriminator, maps)
    hinge = (1 + no).clamp(min=0).mean() + (1 - yes).clamp(min=0).mean()
    assert system.discriminator_loss(*maps).item() == pytest.approx(hinge.item(), abs=1e-5)


@pytest.mark.parametrize(("share", "first"), [(0.5, [0, 1] * 4), (0.25, [0, 0, 0, 1] * 2)])
def test_steps_of_the_same_identity_are_evenly_spread(share, first):
    system = swapper(same=share, warmup=3)
    assert [system.is_same(n) for n in range(11)] == [True] * 3 + list(map(bool, first))


def test_others_are_never_given_their_own_identity(tmp_path, monkeypatch):
    asked = []
    losses = Swapper.generator_losses

    def watched(self, x, e, wanted, same):
        asked.append((x, e, same))
        return losses(self, x, e, wanted, same)

    monkeypatch.setattr(Swapper, "generator_losses", watched)
    system, _ = fit(tmp_path, 4)
    assert [same for _, _, same in asked] == [False, True, False, True]
    for x, e, same in asked:  # colours are persons, so another picture has the same embedding
        own = torch.cosine_similarity(e, system.encoder.embed(x))
        assert (own > 0.9999).all() if same else not (own > 0.9999).all()


def test_a_perfect_swap_and_doing_nothing_are_told_apart(tmp_path):
    torch.manual_seed(0)
    system, data = swapper(), Colours(batch_size=4)
    data.setup("test")
    pictures = data.split("test")

    def perfect(target, source):
        looks = [[x.equal(y) for y in every].index(True) for x in target]
        persons = [[x.equal(y) for y in every].index(True) for x in source]
        return data.swapped("test", persons, looks)

    every = data.normalize(pictures.__getitems__(range(8))["image"])
    system.swap = perfect
    trainer(tmp_path, 1, limit_test_batches=1.0).test(system, data, verbose=False)
    record = json.loads((tmp_path / "swap.json").read_text())
    rows = record["rows"]
    assert record["pairs"] == 8
    assert rows["swapper"]["truth"] == rows["swapper"]["background"] == 0
    assert rows["swapper"]["source"] == pytest.approx(1, abs=0.01)
    assert rows["the exact truth"] == {k: v for k, v in rows["swapper"].items() if k != "psnr"}
    assert rows["swapper"]["gain"] == pytest.approx(-rows["return the target"]["gain"], abs=0.02)
    assert rows["return the target"]["target"] == pytest.approx(1, abs=1e-5)
    assert rows["return the target"]["background"] == 0
    assert rows["return the source"]["source"] == pytest.approx(1, abs=1e-5)
    assert rows["return the target"]["truth"] > 5
    said = Image.open(tmp_path / "swap.png").text
    assert (
        said["diffusion.weights"]
        == record["weights"]
        == weights_digest(system.network.state_dict())
    )


@pytest.mark.slow
def test_training_stops_where_the_target_is_returned(tmp_path):
    system = swapper(patience=2)
    system.swap = lambda target, source: target
    options = {"limit_val_batches": 1, "val_check_interval": 1}
    with pytest.warns(UserWarning, match="training ends at step 2: swaps are still nearer to the"):
        trainer(tmp_path, 5, **options).fit(system, Colours(batch_size=6))
    assert system.global_step == 2


def test_what_does_not_fit_is_refused():
    network = SwapGenerator(16, 3, 7, (4, 6, 8, 8), 1)
    with pytest.raises(ValueError, match=r"model\.network\.identity: 7; expected 8, the size of"):
        Swapper(network, encoder())
    network = SwapGenerator(16, 3, 8, (4, 6, 8, 8), 1)
    with pytest.raises(ValueError, match=r"model\.judge: \w+, which conditions, too; expected ano"):
        Swapper(network, encoder(), encoder())
    with pytest.raises(ValueError, match=r"model\.same: 1; expected 0 < same < 1"):
        Swapper(network, encoder(), same=1)
    with pytest.raises(ValueError, match=r"model\.identity: -1; expected at least 0"):
        Swapper(network, encoder(), identity=-1)
    with pytest.raises(ValueError, match="data: Digits does not say who is seen; expected data"):
        swapper().check(Digits())
    with pytest.raises(ValueError, match=r"data\.batch_size: 1; expected at least 2"):
        swapper().check(Colours(batch_size=1))
    wide = SwapGenerator(8, 3, 8, (4, 6, 8, 8), 1)
    with pytest.raises(ValueError, match=r"model\.network: of pictures of shape \(3, 8, 8\); exp"):
        Swapper(wide, encoder()).check(Colours())


@pytest.mark.slow
def test_one_pair_is_learned_by_heart(tmp_path):
    """The swap of one pair becomes the other person's colour with the target's square."""
    torch.manual_seed(0)
    system = swapper(optimizer=partial(torch.optim.Adam, lr=5e-3, betas=(0.0, 0.99)))
    data = Colours(batch_size=4)
    data.setup("fit")
    pictures = data.split("train")
    pictures.rows = [0, 1, 5, 4]  # two persons, two looks each
    trainer(tmp_path, 200).fit(system, data)
    x, y = (data.normalize(pictures.pictures.__getitems__([i])["image"]) for i in (0, 5))
    with torch.no_grad():
        out = system.swap(x, y)
        cosine = (system.encoder.embed(out) * system.encoder.embed(y)).sum()
        before = (system.encoder.embed(x) * system.encoder.embed(y)).sum()
    assert cosine > 0.9 > before
    truth = data.swapped("train", [2], [0])
    assert (out - truth).square().mean() < 0.5 * (x - truth).square().mean()
