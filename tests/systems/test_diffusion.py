import csv
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from diffusion.guidance import Guidance
from diffusion.networks import MLP
from diffusion.noise import SeededNoise
from diffusion.objective import Simple
from diffusion.parameterization import Eps
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion


@pytest.fixture
def module(fitted):
    return Diffusion.load_from_checkpoint(fitted.last)


def labelled(n):
    return {"label": torch.arange(n) % 10}


def rows(run):
    return list(csv.DictReader((run.folder / "run/csv/version_0/metrics.csv").open()))


def logged(run, name):
    return [float(row[name]) for row in rows(run) if row.get(name)]


def test_labels_are_forgotten_sample_by_sample_and_the_null_row_learns(run, monkeypatch):
    seen, gradients = [], []
    from diffusion.networks import UNet

    forward = UNet.forward

    def spy(self, x, t, label=None):
        if self.training:
            seen.append(label.clone())
            if self.embedding.label.weight.grad is not None:
                gradients.append(self.embedding.label.weight.grad[10].abs().sum().item())
        return forward(self, x, t, label)

    monkeypatch.setattr(UNet, "forward", spy)
    run.fit("--data.batch_size=64", "--model.p_uncond=0.5", "--trainer.detect_anomaly=false")
    null = [(label == 10).float().mean().item() for label in seen]
    assert len(set(null)) > 1
    assert all(0.2 < share < 0.8 for share in null)
    saved = run.load()["optimizer_states"][0]["state"]
    shapes = [s["exp_avg"] for s in saved.values() if s["exp_avg"].shape[0] == 11]
    assert shapes[0][10].abs().sum() > 0


def test_validation_loss_repeats_and_does_not_depend_on_the_global_generator(run, fitted, extra):
    class Stir(L.Callback):
        def on_validation_start(self, trainer, module):
            torch.manual_seed(int.from_bytes(name.encode(), "little"))

    extra(Stir())
    for name in ("one", "two"):
        place = f"--trainer.default_root_dir={name}"
        run("validate", "--ckpt_path", fitted.last, place, "--trainer.limit_val_batches=3")
    texts = [(run.folder / n / "csv/version_0/metrics.csv").read_text() for n in ("one", "two")]
    assert texts[0] == texts[1]
    assert "val/loss" in texts[0]


def test_validation_leaves_training_as_it_was(run, same):
    run.fit("--trainer.val_check_interval=1", "--samples.every_n_steps=1")
    run.fit("--trainer.default_root_dir=other")
    assert same(
        run.load()["raw_state_dict"], run.load("other/checkpoints/last.ckpt")["raw_state_dict"]
    )


def test_a_sample_does_not_depend_on_the_batch_it_is_in(module):
    together = module.generate(labelled(8), range(8))
    for i in range(8):
        alone = {"label": torch.tensor([i])}
        torch.testing.assert_close(
            module.generate(alone, [i]), together[i : i + 1], rtol=0, atol=1e-5
        )
    assert not torch.equal(together[0], together[1])


def test_generating_leaves_the_generator_and_the_modes_as_they_were(module):
    module.train()
    module.denoiser.network.embedding.eval()
    before = [m.training for m in module.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    module.generate(labelled(2), [0, 1])
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in module.modules()] == before
    steps = module.trajectory(labelled(2), [0, 1])
    next(steps)
    steps.close()  # given up half way
    assert [m.training for m in module.modules()] == before


def test_a_trajectory_begins_with_the_noise_and_ends_with_the_sample(module):
    moments = list(module.trajectory(labelled(2), [5, 6]))
    assert len(moments) == 4
    assert torch.equal(moments[0][1:], SeededNoise(0, [6]).normal((1, 8, 8)))
    assert torch.equal(moments[-1], module.generate(labelled(2), [5, 6]))


@pytest.mark.parametrize("every", [3, 1])
def test_a_loss_that_is_not_finite_stops_and_says_where_to_go_back_to(
    run, refused, monkeypatch, every
):
    step = Diffusion.training_step

    def spoil(self, batch, batch_idx):
        if self.trainer.global_step >= 6:
            batch = {**batch, "image": batch["image"] * torch.nan}
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Diffusion, "training_step", spoil)
    line = refused(
        *("fit", "--config", "tiny.yaml", "--trainer.max_steps=20"),
        *("--trainer.log_every_n_steps=4", f"--checkpoint.every_n_steps={every}"),
    )
    assert "since step 7" in line
    assert "t = " in line
    good = run.folder / "run/checkpoints/step_0000006.ckpt"
    assert str(good) in line or "run/checkpoints/step_0000006.ckpt" in line
    assert [p.name for p in good.parent.glob("*.ckpt") if not p.is_symlink()] == [good.name]
    for key in ("state_dict", "raw_state_dict"):
        assert all(w.isfinite().all() for w in run.load()[key].values())


def test_weights_that_are_not_finite_are_not_saved(run, refused, extra):
    class Spoil(L.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 3:
                next(module.parameters()).grad.fill_(torch.nan)

    extra(Spoil())
    line = refused("fit", "--config", "tiny.yaml", "--checkpoint.every_n_steps=2")
    assert "weights are not finite" in line
    assert run.load()["global_step"] == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_figures_of_training(run, extra, accumulate):
    class Note(L.Callback):
        losses, norms = [], []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.losses.append((trainer.global_step, outputs["losses"], outputs["t"]))

        def on_before_optimizer_step(self, trainer, module, optimizer):
            flat = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
            self.norms.append(flat.double().norm().item())

    note = extra(Note())
    note.losses, note.norms = [], []
    run.fit(
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--trainer.gradient_clip_val=0.01",
        "--model.lr_scheduler=Warmup",
        "--model.lr_scheduler.warmup=10",
    )
    assert [int(r["step"]) for r in rows(run) if r.get("train/loss")] == [2, 4]
    batches = [note.losses[: 2 * accumulate], note.losses[2 * accumulate :]]
    for k, part in enumerate(batches):
        losses, t = torch.cat([p[1] for p in part]), torch.cat([p[2] for p in part])
        assert logged(run, "train/loss")[k] == pytest.approx(losses.mean().item(), rel=1e-5)
        for q in range(4):
            chosen = losses[(t > 5 * q) & (t <= 5 * q + 5)]
            row = [r for r in rows(run) if r.get("train/loss")][k]
            if len(chosen):
                value = float(row[f"train/loss_q{q + 1}"])
                assert value == pytest.approx(chosen.mean().item(), rel=1e-5)
            else:
                assert not row[f"train/loss_q{q + 1}"]
    assert logged(run, "train/images") == [16 * accumulate, 32 * accumulate]
    assert logged(run, "train/grad_norm") == pytest.approx([note.norms[1], note.norms[3]], rel=1e-5)
    assert logged(run, "train/lr") == pytest.approx([3e-4, 5e-4])
    assert all(rate > 0 for rate in logged(run, "train/images_per_second"))


def test_images_seen_are_counted_on_after_resuming(run):
    run.fit()
    run.fit("--ckpt_path=last", "--trainer.max_steps=6")
    with (run.folder / "run/csv/version_1/metrics.csv").open() as file:
        seen = [row["train/images"] for row in csv.DictReader(file) if row.get("train/images")]
    assert [float(x) for x in seen] == [48.0]


class Read(Guidance):
    """Makes a condition of its own, and counts how often."""

    needs = ("label",)

    def __init__(self):
        self.times = 0

    def read(self, batch):
        self.times += 1
        return {"read": batch["label"].float()}

    def guided(self, denoise, x_t, t, cond):
        return denoise(x_t, t, cond)


def of_points(network, guidance=(), p_uncond=0.0):
    sampler = Sampler(DDIM(), 2, guidance)
    return Diffusion(network, Cosine(T=20), Eps(), Simple(), sampler, p_uncond)


BATCH = {"image": torch.zeros(4, 2), "label": torch.tensor([0, 1, 2, 0]), "text": ["a"] * 4}


def trained_and_validated(module):
    """Takes one step of each kind."""
    module._trainer = SimpleNamespace(
        world_size=1, global_rank=0, global_step=0, accumulate_grad_batches=1
    )
    module.training_step(BATCH, 0)
    module.on_validation_epoch_start()
    module.validation_step(BATCH, 0)


def test_what_guides_reads_nothing_of_training_data():
    guide = Read()
    module = of_points(MLP(width=4, depth=1), [guide])
    trained_and_validated(module)
    assert guide.times == 0
    assert set(module.condition(BATCH).values) == {"label", "read"}


class Plain(nn.Module):
    """A network without `null` and `conditions`; keeps the names of what it is given."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(2, 2), set()

    def forward(self, x_t, t, **conditions):
        self.seen |= set(conditions)
        return self.linear(x_t)


class Labelled(Plain):
    def forward(self, x_t, t, label):
        return super().forward(x_t, t, label=label)


class Unconditional(Plain):
    def forward(self, x_t, t):
        return super().forward(x_t, t)


@pytest.mark.parametrize(
    ("kind", "names"), [(Plain, {"label"}), (Labelled, {"label"}), (Unconditional, set())]
)
def test_without_attributes_the_same_is_read_in_training_and_in_sampling(kind, names):
    module = of_points(kind())
    assert module.reads_labels == bool(names)
    trained_and_validated(module)
    assert module.denoiser.network.seen == names
    module.denoiser.network.seen.clear()
    request = {"index": torch.arange(4), "label": BATCH["label"]}
    module._trainer = None
    module.spec = DataSpec(None, (2,))
    module.generate(request, range(4))
    assert module.denoiser.network.seen == names


def test_what_has_no_null_is_not_forgotten():
    with pytest.raises(ValueError, match=r"model.p_uncond: 0.1; .* no ∅ for label"):
        of_points(Labelled(), p_uncond=0.1)
    of_points(Unconditional(), p_uncond=0.1)
