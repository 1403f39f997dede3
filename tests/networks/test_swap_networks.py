from collections import Counter

import numpy as np
import pytest
import torch

from diffusion.networks import ProjectedDiscriminator, SwapGenerator
from diffusion.networks.efficientnet_lite0 import Lite0
from diffusion.networks.identity import projected_discriminator
from diffusion.networks.identity.swap_generator import AdaptiveNorm

WIDTHS = (4, 4, 6, 8)


def test_at_the_published_size_it_has_as_many_numbers_as_the_published_file():
    """inswapper_128.onnx has 554 MB, float32, its emap among them."""
    with torch.device("meta"):
        net = SwapGenerator(128, 3, 512, (128, 256, 512, 1024), 6)
    numbers = sum(p.numel() for p in net.parameters()) + net.emap.numel()
    assert 4 * numbers == pytest.approx(554.2e6, rel=1e-3)


def test_identities_are_normalised_multiplied_and_normalised():
    """As the published inference: normed_embedding · emap, then by its length."""
    random = np.random.default_rng(0)
    e, emap = random.normal(size=(3, 6)), random.normal(size=(6, 6))
    rows = [row / np.linalg.norm(row) for row in e]
    latent = [np.dot(row.reshape(1, -1), emap)[0] for row in rows]
    expected = np.stack([row / np.linalg.norm(row) for row in latent])
    net = SwapGenerator(8, 3, 6, WIDTHS, 1).double()
    assert torch.allclose(net.latent(torch.from_numpy(e)), torch.from_numpy(np.stack(rows)))
    net.emap.copy_(torch.from_numpy(emap))
    assert torch.allclose(net.latent(torch.from_numpy(7 * e)), torch.from_numpy(expected))
    assert "emap" in net.state_dict()
    assert not any(p is net.emap for p in net.parameters())


def test_adaptive_norm_gives_channels_the_mean_and_deviation_of_the_identity():
    norm, h, z = AdaptiveNorm(3, 5), torch.randn(2, 3, 16, 16), torch.randn(2, 5)
    out = norm(4 * h + 9, z)
    scale, shift = norm.style(z).chunk(2, 1)
    assert torch.allclose(out.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(out.std((2, 3), correction=0), (1 + scale).abs(), rtol=1e-4)


def test_pictures_are_changed_by_who_they_become():
    net, x = SwapGenerator(8, 1, 6, WIDTHS, 2), torch.rand(2, 1, 8, 8)
    a, b = net(x, torch.eye(6)[:2]), net(x, torch.eye(6)[2:4])
    assert a.shape == x.shape
    assert a.abs().max() <= 1
    assert (a - b).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"model\.network\.image_size: 10; expected a multiple of"):
        SwapGenerator(10)
    with pytest.raises(ValueError, match=r"model\.network\.widths: \[4, 4\]; expected 4 counts"):
        SwapGenerator(8, widths=(4, 4))


def test_only_the_heads_of_the_critic_are_trained(monkeypatch):
    asked = Counter()

    def made(root):
        asked[root] += 1
        torch.manual_seed(1)
        return Lite0().eval().requires_grad_(False)

    monkeypatch.setattr(projected_discriminator, "load_lite0", made)
    net, again = (ProjectedDiscriminator(32, 4) for _ in range(2))
    assert not asked  # what draws, but trains nothing, needs no package
    assert {name.split(".")[0] for name in net.state_dict()} == {net.mark, "heads"}
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    h, same = net.features(x), again.features(x)
    assert [one.shape[1:] for one in h] == [(4, 8, 8), (8, 4, 4), (16, 2, 2), (32, 1, 1)]
    assert all(torch.equal(a, b) for a, b in zip(h, same))  # mixed by the same matrices
    logits = net(h)
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"model\.discriminator\.size: 48; expected a multiple of"):
        ProjectedDiscriminator(48)


def test_features_of_each_depth_are_mixed_as_the_formula_says(monkeypatch):
    monkeypatch.setattr(
        projected_discriminator, "load_lite0", lambda _: Lite0().eval().requires_grad_(False)
    )
    net, x = ProjectedDiscriminator(32, 4), torch.rand(1, 3, 32, 32)
    h = net.features(x)
    maps = [*net._base[0].maps((127.5 * (x + 1) - 127) / 128)]
    f = [maps[i] for i, _ in projected_discriminator.DEPTHS]
    f = [(one - one.mean()) / (one.var(correction=0) + 1e-5).sqrt() for one in f]
    W = [net.get_buffer(f"mix_{k}")[:, :, 0, 0] for k in range(4)]
    U = net.get_buffer("from_3")[:, :, 0, 0]
    h_4 = torch.einsum("oc,bchw->bohw", W[3], f[3])
    assert torch.allclose(h[3], h_4, atol=1e-4)
    coarse = torch.einsum("oc,bchw->bohw", U, h_4).expand(-1, -1, 2, 2)  # of one pixel
    h_3 = (torch.einsum("oc,bchw->bohw", W[2], f[2]) + coarse) / 2**0.5
    assert torch.allclose(h[2], h_3, atol=1e-4)
