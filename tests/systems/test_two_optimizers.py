import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.monitor import Monitor
from diffusion.common.schedules import Warmup
from diffusion.data import SwissRoll
from diffusion.systems.averages import EMA
from diffusion.systems.base import StepOutput, System


class Adversarial(System):
    """A generator of points and its critic, each with an optimizer and a schedule of its own."""

    def __init__(self, often=1):
        super().__init__(partial(torch.optim.Adam, lr=1e-2), partial(Warmup, warmup=4))
        self.automatic_optimization = False
        self.maker, self.critic, self.often = nn.Linear(3, 2), nn.Linear(2, 1), often

    def check(self, data):
        pass

    def configure_optimizers(self):
        parts = [self.optimizer(part.parameters()) for part in (self.maker, self.critic)]
        return parts, [self.lr_scheduler(part) for part in parts]

    def training_step(self, batch, batch_idx) -> StepOutput:
        noise = self.step_noise(batch_idx, len(batch["image"]))
        real, fake = batch["image"], self.maker(noise.normal((3,)))
        losses = nn.functional.softplus(-self.critic(fake))[:, 0]
        wrong = nn.functional.softplus(torch.cat([self.critic(fake.detach()), -self.critic(real)]))
        for k, loss in enumerate([losses.mean()] * self.often + [wrong.mean()]):
            mine = self.optimizers()[k // self.often]
            mine.zero_grad()
            self.manual_backward(loss, retain_graph=True)
            mine.step()
        for schedule in self.lr_schedulers():
            schedule.step()
        return {"loss": losses.mean(), "losses": losses.detach()}


class Log(L.pytorch.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        self.rows[step] = metrics


def fit(folder, steps, resume=None, often=1, seed=0):
    torch.manual_seed(seed)
    system, ema, log = Adversarial(often), EMA(0.9), Log()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        use_distributed_sampler=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        logger=log,
        callbacks=[Checkpoint(str(folder), every_n_steps=3, keep=-1), ema, Monitor()],
    )
    trainer.fit(system, SwissRoll(batch_size=16), ckpt_path=resume)
    return log.rows, ema


def test_a_run_with_two_optimizers_resumes_bit_for_bit(tmp_path, same):
    rows, ema = fit(tmp_path / "whole", 6)
    fit(tmp_path / "parts", 3)
    again, _ = fit(tmp_path / "parts", 6, tmp_path / "parts/step_0000003.ckpt", seed=1)
    whole, parts = (
        torch.load(tmp_path / f"{name}/step_0000006.ckpt", weights_only=True)
        for name in ("whole", "parts")
    )
    for key in ("state_dict", "raw_state_dict", "ema_steps", "optimizer_states", "lr_schedulers"):
        assert same(whole[key], parts[key]), key
    assert same(whole["loops"], parts["loops"])
    assert whole["SwissRoll"] == parts["SwissRoll"] == {"read": 96}
    assert ema.steps == whole["global_step"] == 6  # a round of both is one step
    assert sorted(rows) == [2, 4, 6]
    assert sorted(again) == [4, 6]
    assert rows[6]["train/grad_norm"] == again[6]["train/grad_norm"]
    names = sorted(path.name for path in (tmp_path / "whole").glob("step_*"))
    assert names == ["step_0000003.ckpt", "step_0000006.ckpt"]


def test_other_options_are_taken_by_all_optimizers(tmp_path):
    fit(tmp_path, 3)
    path = tmp_path / "step_0000003.ckpt"
    saved = torch.load(path, weights_only=True)
    one = copy.deepcopy(saved)
    del one["optimizer_states"][1]
    torch.save(one, path)
    with pytest.raises(ValueError, match="ckpt_path: 1 optimizers; expected 2, as the model has"):
        fit(tmp_path, 6, path)


def test_a_step_of_several_moves_of_the_first_optimizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"training_step: 2 steps of the first optimizer; exp"):
        fit(tmp_path, 4, often=2)
