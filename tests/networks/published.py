"""Weights for a published network and for ours that anyone can make again."""

import numpy as np
import torch


@torch.no_grad()
def fill(network, seed=0):
    """Fills the parameters, in their order, from NumPy's frozen stream of normal numbers.

    The published networks of improved-diffusion and guided-diffusion hold their parameters in the
    order of ours; where a linear layer of ours is a 1x1 convolution there, the numbers are the
    same. Matrices get z / √(columns), the rest 0.1 z around 0 for biases and around 1 for norms.
    """
    random = np.random.RandomState(seed)
    for name, parameter in network.named_parameters():
        z = torch.from_numpy(random.standard_normal(parameter.numel())).float().view_as(parameter)
        if name.endswith("bias"):
            z = 0.1 * z
        elif parameter.ndim == 1:
            z = 1 + 0.1 * z
        else:
            z = z / (parameter.numel() / len(parameter)) ** 0.5
        parameter.copy_(z)
    return network.eval()


def inputs(size=8):
    """x_t (2, 3, size, size), times counted from 0 as the published networks do, and labels."""
    x_t = np.random.RandomState(1).standard_normal((2, 3, size, size))
    return torch.from_numpy(x_t).float(), torch.tensor([0, 700]), torch.tensor([3, 9])
