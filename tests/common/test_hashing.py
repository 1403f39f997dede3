"""One digest of a model's weights."""

import torch
from safetensors.torch import save_file
from torch import nn

from diffusion.common.hashing import weights_digest
from diffusion.common.weights import read, state


def test_a_checkpoint_and_its_half_precision_export_are_the_same_model(tmp_path):
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "last.ckpt")
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    checkpoint = state(read(tmp_path / "last.ckpt"), "ckpt", tmp_path / "last.ckpt")
    assert checkpoint["0.weight"].dtype == torch.float32
    export = read(tmp_path / "half.safetensors")
    assert export["0.weight"].dtype == torch.float16
    assert list(export) != list(checkpoint)  # safetensors sorts them otherwise
    assert weights_digest(checkpoint) == weights_digest(export) == weights_digest(net.state_dict())


def test_names_shapes_and_values_count():
    x = torch.arange(6.0)
    states = [{"a": x}, {"b": x}, {"a": x.view(2, 3)}, {"a": x + 0.01}, {"a": x, "b": x}]
    assert len({weights_digest(state) for state in states}) == len(states)
    assert weights_digest({"a": x, "b": x}) == weights_digest({"b": x, "a": x})
