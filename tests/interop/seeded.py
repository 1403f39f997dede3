"""Weights, inputs and noise that anyone can make again, from names and NumPy's frozen stream."""

import zlib

import numpy as np
import torch


def weights(shapes):
    """Returns tensors of these shapes; each depends on its name alone.

    Matrices get z / √(columns), the rest 0.1 z around 0 for biases and around 1 for norms.
    """
    return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}


def tensor(name, shape):
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    z = torch.from_numpy(stream.standard_normal(int(np.prod(shape)))).float().reshape(shape)
    if name.endswith("bias"):
        return 0.1 * z
    if name.endswith(".g") or sum(size > 1 for size in shape) <= 1:
        return 1 + 0.1 * z
    return z / (z.numel() / len(z)) ** 0.5


def numbers(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


class Noise:
    """randn_like that takes the next numbers of one stream."""

    def __init__(self, seed=5):
        self.stream = np.random.RandomState(seed)

    def __call__(self, x, *_args, **_kwargs):
        return torch.from_numpy(self.stream.standard_normal(tuple(x.shape))).to(x)
