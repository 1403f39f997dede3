import torch

from diffusion.common.pixels import quantize


def test_ends_middle_and_beyond():
    x = torch.tensor([-1, 1, 0, -1.5, 2, torch.inf, -torch.inf, -0.999, 0.999])
    assert quantize(x).tolist() == [0, 255, 128, 0, 255, 255, 0, 0, 255]


def test_every_level_survives():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantize(levels.float() / 127.5 - 1), levels)


def test_dtype_and_shape():
    x = quantize(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16))
    assert x.dtype == torch.uint8
    assert x.shape == (2, 3, 4, 4)
