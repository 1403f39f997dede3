"""Weights and images by a formula, so that no generator of random numbers has to stay the same."""

import torch


def wave(shape, phase):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(0.7 * n * (1 + n / 1000) + phase).float().reshape(shape)


def filled(shapes):
    """Weights for EfficientNet-lite0 by name, whose activations neither vanish nor saturate."""
    out = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        x = wave(shape, i)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            out[name] = 1 + x / 2
        elif len(shape) > 1:
            out[name] = x * (4 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            out[name] = x / 4
    return out


def images():
    """Three pictures as the network reads them, (3, 3, 96, 96)."""
    return wave((3, 3, 96, 96), 1) * torch.linspace(0.2, 1, 3).view(-1, 1, 1, 1)
