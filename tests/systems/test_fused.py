import copy
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import nn
from torch.optim import SGD, Adam, AdamW

from diffusion.common.muon import MuonWithAdamW
from diffusion.data import SwissRoll
from diffusion.systems.base import StepOutput, System
from diffusion.systems.checkpoints.resume import adopt
from diffusion.systems.fused import fused, lay_out


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = (5,), (7, 3), (4, 3, 5, 5), (1, 6, 1, 1)
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    made[2] = made[2].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(p) for p in made]


def moved(optimizer, params, steps=5, seed=1):
    """The parameters after steps with gradients as autograd leaves them, or laid out otherwise."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        lay_out(optimizer)
        optimizer.step()
    return [p.detach().clone() for p in params]


def is_fused(optimizer):
    return all(group["fused"] is True for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {}),
        (Adam, {"weight_decay": 0.3, "amsgrad": True}),
        (AdamW, {}),
        (AdamW, {"weight_decay": 0.3, "amsgrad": True}),
        (partial(MuonWithAdamW, least=3), {"weight_decay": 0.3}),
    ],
    ids=["adam", "adam-more", "adamw", "adamw-more", "muon"],
)
def test_a_fused_step_is_the_loops_up_to_rounding(kind, options):
    """Also where gradients are in another memory format than a kernel, which is channels last."""
    every = []
    for told in (False, True):
        params = parameters()
        make = partial(kind, lr=0.1, **options)
        optimizer = fused(make, params) if told else make(params)
        every.append((is_fused(optimizer), moved(optimizer, params)))
    assert [x for x, _ in every] == [False, True]
    torch.testing.assert_close(every[1][1], every[0][1], rtol=1e-5, atol=1e-6)


OTHERS = {
    "fused": partial(AdamW, fused=False),
    "foreach": partial(AdamW, foreach=True),
    "loop": partial(AdamW, foreach=False),
    "capturable": partial(AdamW, capturable=True),
    "differentiable": partial(AdamW, differentiable=True),
    "SGD": SGD,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=list(OTHERS))
def test_what_the_user_says_wins(make):
    params = parameters()
    assert fused(make, params).state_dict() == make(params).state_dict()


@pytest.mark.parametrize(
    "p", [torch.zeros(4, 6)[:, ::2], torch.zeros(3, dtype=torch.complex64)], ids=["gaps", "complex"]
)
def test_what_the_kernel_cannot_move_is_moved_by_the_loop(p):
    params = [nn.Parameter(p), nn.Parameter(torch.zeros(3))]
    assert not is_fused(fused(AdamW, params))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_run_that_began_with_the_loop_goes_on_fused(layout):
    params = parameters()
    loop = AdamW(params, foreach=False)
    moved(loop, params)
    state = copy.deepcopy(loop.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        state["state"][2][name] = state["state"][2][name].contiguous(memory_format=layout)
    checkpoint = {"optimizer_states": [state], "lr_schedulers": [], "global_step": 5}

    begun = [nn.Parameter(p.detach().clone()) for p in params]
    adopt(checkpoint, [fused(AdamW, begun)], list[LRSchedulerConfig]())
    optimizer = fused(AdamW, begun)
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    assert is_fused(optimizer)
    found, expected = moved(optimizer, begun, seed=2), moved(loop, params, seed=2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(optimizer.state[p]["step"] == 10 for p in begun)


class Line(System):
    def __init__(self, **options):
        super().__init__(partial(AdamW, lr=0.1, **options), None)
        self.line = nn.Linear(2, 1)

    def check(self, data):
        pass

    def training_step(self, batch, batch_idx) -> StepOutput:
        losses = 100 * self.line(batch["image"])[:, 0] ** 2
        return {"loss": losses.mean(), "losses": losses.detach()}


def fit(**options):
    torch.manual_seed(0)
    system = Line(**options)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=0,
        gradient_clip_val=0.01,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 256.0))],
    )
    trainer.fit(system, SwissRoll(batch_size=16))
    return is_fused(trainer.optimizers[0]), [p.detach() for p in system.parameters()]


def test_gradients_that_fp16_scales_are_clipped_before_a_fused_step():
    (no, expected), (yes, found) = fit(fused=False), fit()
    assert (no, yes) == (False, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        fit(fused=True)  # PyTorch's own, whose step does the unscaling


def test_a_flag_turns_it_off(run, fitted):
    run.fit("--model.optimizer.fused=false")
    off, on = run.load(), fitted.load()
    found = [x["optimizer_states"][0]["param_groups"][0]["fused"] for x in (off, on)]
    assert found == [False, True]
    torch.testing.assert_close(on["raw_state_dict"], off["raw_state_dict"], rtol=1e-4, atol=1e-5)
