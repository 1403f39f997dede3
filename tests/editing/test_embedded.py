"""The latents of pictures, against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from diffusion.editing.embedded import apart, slerp, truncated


def test_slerp_is_a_rotation_at_constant_speed():
    """In a plane, with lengths 1, it turns by w times the angle."""
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(1.2), math.sin(1.2)]])
    w = torch.linspace(0, 1, 7)
    by_hand = torch.stack([(1.2 * w).cos(), (1.2 * w).sin()], 1)
    torch.testing.assert_close(slerp(a, b, w), by_hand)
    assert torch.equal(slerp(a, a, w), a.expand(7, 2))
    # Of pictures: the shape stays, and of equal lengths the length does.
    x, y = F.normalize(torch.randn(2, 48), dim=1).reshape(2, 1, 3, 4, 4)
    lengths = slerp(x, y, w).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(7))
    torch.testing.assert_close(slerp(x, y, w)[[0, -1]], torch.cat([x, y]))
    with pytest.raises(ValueError, match="opposite directions"):
        slerp(a, -a, w)


def test_truncation_keeps_the_first_directions():
    """Against the eigenvectors of the covariance, which are found otherwise than by an SVD."""
    D, k = 6, 2
    among = torch.randn(50, D, dtype=torch.float64) @ torch.diag(
        torch.tensor([5.0, 3, 1, 1, 1, 1]).double()
    )
    z = D**0.5 * F.normalize(torch.randn(4, D, dtype=torch.float64))
    m = among.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov(among.T))
    P = vectors[:, -k:]
    by_hand = D**0.5 * F.normalize(m + (z - m) @ P @ P.T)
    torch.testing.assert_close(truncated(z, among, k), by_hand)
    torch.testing.assert_close(truncated(z, among, D), z)  # all of them lose nothing
    with pytest.raises(ValueError, match="at least two"):
        truncated(z, among[:1], k)


def test_the_error_is_in_levels():
    a = torch.zeros(2, 3, 4, 4) + 0.1
    b = a.clone()
    b[1] += 2 * 5 / 255
    torch.testing.assert_close(apart(a, b), torch.tensor([0.0, 5.0]))
