import lightning as L
import pytest
import torch

from diffusion.data import Digits
from diffusion.networks import UNet
from diffusion.objective import Simple
from diffusion.parameterization import V
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.averages import EMA
from diffusion.systems.diffusion import Diffusion


class Watch(L.Callback):
    """Notes the weights after every optimizer step, and those in place in validation."""

    def __init__(self):
        self.steps, self.validated, self.before, self.after = {}, [], None, None

    def on_train_start(self, trainer, module):
        self.steps[trainer.global_step] = weights(module)

    def on_train_batch_end(self, trainer, module, *_):
        self.steps[trainer.global_step] = weights(module)

    def on_validation_epoch_start(self, trainer, module):
        self.validated.append(weights(module))

    def on_train_end(self, trainer, module):
        self.after = weights(module)


def weights(module):
    return {k: p.detach().clone() for k, p in module.named_parameters()}


@pytest.fixture
def watch(extra):
    return extra(Watch())


def average(steps, decay, warmup=True):
    """θ̄_N = Π d_n θ_0 + Σ_n (1 − d_n) Π_{m > n} d_m θ_n, in float64."""
    d = {n: min(decay, (1 + n) / (10 + n)) if warmup else decay for n in steps if n}
    total = {k: torch.zeros_like(w, dtype=torch.float64) for k, w in steps[0].items()}
    for n, theta in steps.items():
        factor = 1 - d[n] if n else 1.0
        for m in d:
            factor *= d[m] if m > n else 1
        for k, w in theta.items():
            total[k] += factor * w.double()
    return total


def close(a, b):
    for k in b:
        torch.testing.assert_close(a[k].double(), b[k].double(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_is_the_geometric_sum_over_optimizer_steps(run, watch, warmup, accumulate):
    flags = {"ema.warmup": warmup, "trainer.accumulate_grad_batches": accumulate, "ema.decay": 0.3}
    run.fit(*[f"--{k}={v}" for k, v in flags.items()])
    assert list(watch.steps) == [0, 1, 2, 3, 4]
    saved = run.load()
    close(saved["state_dict"], average(watch.steps, 0.3, warmup))
    assert all(torch.equal(saved["raw_state_dict"][k], w) for k, w in watch.steps[4].items())
    assert saved["ema_steps"] == 4


class Look(L.Callback):
    """Notes the weights in place while testing and predicting."""

    def __init__(self):
        self.seen = []

    def on_test_epoch_end(self, trainer, module):
        self.seen.append(weights(module))

    def on_predict_epoch_end(self, trainer, module):
        self.seen.append(weights(module))


def test_testing_and_predicting_after_fit_see_the_average(tmp_path, same):
    network = UNet(8, 1, channels=8, multipliers=[1], attention=[], blocks=1, num_classes=10)
    model = Diffusion(network, Cosine(20), V(), Simple(), Sampler(DDIM(), 2))
    ema, look, data = EMA(0.9), Look(), Digits(batch_size=8, samples=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=0,
        limit_test_batches=1,
        use_distributed_sampler=False,
        callbacks=[ema, look],
        **quiet,
    )
    trainer.fit(model, data)
    raw, average = weights(model), {k: v.clone() for k, v in ema.average.items()}
    assert not same(raw, average)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    trainer.test(model, data, verbose=False)
    assert same(weights(model), raw)
    trainer.predict(model, data, return_predictions=False)
    assert same(weights(model), raw)
    trainer.test(model, data, ckpt_path=tmp_path / "x.ckpt", verbose=False)
    assert len(look.seen) == 3
    assert all(same(seen, average) for seen in look.seen)


def test_warm_up_is_the_papers_of_tensorflow():
    rates = [EMA(decay=0.5).rate(n) for n in (1, 2, 8, 100)]
    assert rates == [2 / 11, 3 / 12, 0.5, 0.5]


def test_validation_sees_the_average_and_training_goes_on_with_the_raw(run, watch, same):
    run.fit("--trainer.val_check_interval=2")
    assert len(watch.validated) == 2
    close(watch.validated[0], average({n: watch.steps[n] for n in (0, 1, 2)}, 0.9))
    assert same(watch.after, watch.steps[4])
    run.fit("--trainer.default_root_dir=other")
    other = run.load("other/checkpoints/last.ckpt")
    assert same(run.load()["raw_state_dict"], other["raw_state_dict"])


def test_an_exception_in_validation_leaves_and_saves_the_right_weights(run, watch, monkeypatch):
    def fail(self, batch, batch_idx):
        raise KeyError("in validation")

    monkeypatch.setattr("diffusion.systems.diffusion.Diffusion.validation_step", fail)
    with pytest.raises(KeyError):
        run.fit("--trainer.val_check_interval=3")
    saved = run.load()
    assert saved["global_step"] == 3
    close(saved["state_dict"], average(watch.steps, 0.9))
    assert all(torch.equal(saved["raw_state_dict"][k], w) for k, w in watch.steps[3].items())


def test_resuming_restores_both(run, same):
    run.fit()
    run.fit("--ckpt_path=last", "--trainer.max_steps=8")
    run.fit("--trainer.default_root_dir=other", "--trainer.max_steps=8")
    one, other = run.load(), run.load("other/checkpoints/last.ckpt")
    for key in ("state_dict", "raw_state_dict", "ema_steps"):
        assert same(one[key], other[key])


def test_testing_sees_the_average(fitted, run, watch):
    seen = {}
    watch.on_test_start = lambda trainer, module: seen.update(weights(module))
    run("test", "--ckpt_path", fitted.last, "--metrics.n=2", "--trainer.default_root_dir=other")
    saved = fitted.load()["state_dict"]
    assert all(torch.equal(saved[k], w) for k, w in seen.items())


def test_frozen_parameters_are_not_averaged(run, watch, monkeypatch):
    from diffusion.systems.diffusion import Diffusion

    init = Diffusion.__init__

    def frozen(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.denoiser.network.embedding.requires_grad_(False)

    monkeypatch.setattr(Diffusion, "__init__", frozen)
    run.fit()
    saved = run.load()
    assert saved["raw_state_dict"]
    assert not any("embedding" in k for k in saved["raw_state_dict"])
    same = [k for k in watch.steps[0] if torch.equal(saved["state_dict"][k], watch.steps[0][k])]
    assert [k for k in same if "embedding" in k] == [k for k in watch.steps[0] if "embedding" in k]


def test_decay_0_keeps_the_raw_weights_alone(run, watch):
    run.fit("--ema.decay=0")
    saved = run.load()
    assert "raw_state_dict" not in saved
    assert all(torch.equal(saved["state_dict"][k], w) for k, w in watch.steps[4].items())


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_outside_the_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"ema\.decay"):
        EMA(decay)
