"""A base of which a state holds no more than a digest."""

import copy

import pytest
import torch
from torch import nn

from diffusion.networks import Locked
from diffusion.systems.checkpoints.contents import check_tensors, same_shape


class Corrected(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.locked, self.part = Locked(base), nn.Linear(2, 2)

    def forward(self, x, t):
        return self.part(self.locked(x))


@pytest.fixture
def base():
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))


def test_parts_are_trained_and_saved_and_the_base_is_neither(base):
    net = Corrected(copy.deepcopy(base)).train()
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trained == ["part.weight", "part.bias"]
    mark, *parts = sorted(net.state_dict())
    assert parts == ["part.bias", "part.weight"]
    assert mark.startswith("locked.base_")
    x = torch.ones(1, 2)
    assert torch.equal(net(x, None), net.part(base[0](x)))  # nothing is dropped


def test_a_state_is_taken_up_with_the_same_base_only(base):
    one, same, other = (Corrected(b) for b in (base, copy.deepcopy(base), nn.Linear(2, 2)))
    saved = one.state_dict()
    same.load_state_dict(saved)
    assert torch.equal(same.part.weight, one.part.weight)
    assert torch.equal(same.locked.base[0].weight, one.locked.base[0].weight)
    with pytest.raises(RuntimeError, match=r"Missing.*locked.base_\w+(.|\n)*Unexpected.*locked.ba"):
        other.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"x.ckpt was trained with \w+ as .*expected the same"):
        check_tensors(other.state_dict(), saved, "x.ckpt", same_shape)
