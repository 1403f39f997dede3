import re

import pytest
import torch

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.likelihood import Likelihood
from diffusion.callbacks.metrics import Metrics
from diffusion.callbacks.samples import SamplePictures
from diffusion.common.schedules import Warmup
from diffusion.data import Digits, SwissRoll
from diffusion.networks import MLP, DiT, LinearUNet, TextTransformer, UNet, ViT
from diffusion.process import Cosine, Linear, RectifiedFlow, ScaledLinear, Sigmoid, Sohl2015

UNETS = ("in_channels", "out_channels", "blocks", "groups")
NUMBERS = {
    ("checkpoint", Checkpoint): ("every_n_steps",),
    ("samples", SamplePictures): ("columns", "rows", "points", "moments"),
    ("metrics", Metrics): ("n", "batch_size", "every_n_validations"),
    ("likelihood", Likelihood): ("batch_size",),
    ("data", Digits): ("batch_size",),
    ("data", SwissRoll): ("points", "batch_size"),
    ("network", UNet): UNETS,
    ("network", LinearUNet): ("in_channels", "out_channels", "channels", "first"),
    ("network", DiT): ("image_size", "in_channels", "out_channels", "patch", "width", "depth"),
    ("network", MLP): ("dim", "depth"),
    ("network", ViT): ("in_channels", "width", "depth", "out_channels"),
    ("network", TextTransformer): ("width", "depth"),
}
CASES = [(owner, kind, name) for (owner, kind), names in NUMBERS.items() for name in names]
SMALL = {"channels": 8, "multipliers": [1], "attention": [], "image_size": 8}


@pytest.mark.parametrize(("owner", "kind", "name"), CASES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_that_is_too_small_is_refused(owner, kind, name, value):
    others = SMALL if kind is UNet else {}
    with pytest.raises(ValueError, match=rf"^{owner}\.{name}: {value}; expected at least"):
        kind(**{**others, name: value})


@pytest.mark.parametrize("kind", [Cosine, Linear, RectifiedFlow, ScaledLinear, Sigmoid, Sohl2015])
@pytest.mark.parametrize("T", [-1, 0, 1])
def test_a_process_has_at_least_two_times(kind, T):
    with pytest.raises(ValueError, match=re.escape(f"process: T is {T}; expected")):
        kind(T)


def test_other_counts_below_zero():
    with pytest.raises(ValueError, match=r"samples\.every_n_steps: -1; expected at least 0"):
        SamplePictures(every_n_steps=-1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    with pytest.raises(ValueError, match=r"lr_scheduler\.warmup: -1; expected at least 0"):
        Warmup(optimizer, warmup=-1)
