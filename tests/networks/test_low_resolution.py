"""Noise on the condition of an upsampler: the formula, whose noise it is, and what is told."""

from itertools import combinations

import pytest
import torch

from diffusion.common.pixels import rounded, scaled
from diffusion.networks import Augmentation, Blur, Upsampler
from diffusion.noise import Purpose, SeededNoise
from diffusion.process import Cosine


@pytest.fixture
def process():
    return Cosine(T=100)


def test_training_draws_a_level_for_each_sample_and_that_much_noise(process):
    augmentation = Augmentation(process, most=60, level=20)
    z, s = augmentation.train(torch.full((4096, 1, 8, 8), 0.5), SeededNoise(0, range(4096)))
    assert s.min() == 0
    assert s.max() == 60
    counts = torch.bincount(s, minlength=61)
    assert (counts - 4096 / 61).abs().max() < 5 * (4096 / 61) ** 0.5
    alpha, sigma = process.alpha[s], process.sigma[s]
    mean, std = z.double().mean((1, 2, 3)), z.double().std((1, 2, 3))
    assert ((mean - 0.5 * alpha).abs() <= 5 * sigma / 8 + 1e-6).all()
    assert ((std - sigma).abs() <= 5 * sigma / 128**0.5 + 1e-6).all()
    assert torch.equal(z[s == 0], torch.full_like(z[s == 0], 0.5))


def test_samples_have_their_own_noise_in_any_batch(process):
    augmentation = Augmentation(process, most=60, level=20)
    x = torch.randn(3, 1, 4, 4)
    z, s = augmentation.sample(x, SeededNoise(0, [5, 6, 7]))
    assert s.tolist() == [20, 20, 20]
    alone, _ = augmentation.sample(x[1:2], SeededNoise(0, [6]))
    torch.testing.assert_close(z[1:2], alone)
    eps = (z - process.alpha[20] * x) / process.sigma[20]
    assert (eps[0] - eps[1]).abs().max() > 0.1
    assert abs(eps.std() - 1) < 0.3


@pytest.mark.parametrize("train", [False, True])
def test_the_noise_is_the_samples_and_of_nothing_else(process, train):
    net, low = upsampler(process), torch.zeros(2, 1, 4, 4)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    noises = []
    for run in (0, 1):
        noise = SeededNoise(run, [5, 6])
        read = net.read({"low_res": low, "noise": noise}, train)
        assert torch.equal(
            read["low_res"], net.read({"low_res": low, "noise": noise}, train)["low_res"]
        )
        alpha, sigma = process.scales(read["level"], low)
        noises += [*(read["low_res"] - alpha * scaled(rounded(low))) / sigma, *noise(low)]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in combinations(noises, 2):  # no two are alike, nor is one of them x_T
        assert (a - b).abs().max() > 0.1


@pytest.mark.parametrize(
    ("most", "level", "message"),
    [
        (101, 5, r"augmentation.most: 101; expected 0 … T = 100"),
        (10, 11, r"augmentation.level: 11; expected 0 … most = 10"),
        (10, -1, r"augmentation.level: -1; expected 0 … most = 10"),
    ],
)
def test_levels_out_of_range_are_refused(process, most, level, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(process, most, level)


def upsampler(process, **kwargs):
    torch.manual_seed(0)
    net = Upsampler(
        in_channels=1, image_size=8, channels=8, multipliers=[1], attention=[], blocks=1,
        augmentation=process and Augmentation(process, 60, 20), **kwargs,
    )  # fmt: skip
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def test_an_upsampler_is_told_the_level(process):
    net = upsampler(process).eval()
    assert net.conditions == ("low_res", "level")
    x, t, low = torch.randn(2, 1, 8, 8), torch.tensor([3, 7]), torch.randn(2, 1, 4, 4)
    one = net(x, t, low_res=low, level=torch.tensor([0, 50]))
    other = net(x, t, low_res=low, level=torch.tensor([0, 10]))
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_read_rounds_to_8_bits_and_adds_noise(process):
    low = torch.rand(2, 1, 4, 4) * 2.4 - 1.2
    plain = upsampler(None).read({"low_res": low})
    assert list(plain) == ["low_res"]
    levels = (plain["low_res"] + 1) * 127.5
    torch.testing.assert_close(levels, levels.round().clamp(0, 255), atol=1e-4, rtol=0)
    assert (plain["low_res"] - low.clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6
    net = upsampler(process).eval()
    noise, low_8 = SeededNoise(7, [3, 4]), scaled(rounded(low))
    read = net.read({"low_res": low, "noise": noise})
    augmentation = net.conditioners[0].augmentation
    expected, _ = augmentation.sample(low_8, noise.of(Purpose.LEVEL))
    torch.testing.assert_close(read["low_res"], expected)
    assert read["level"].tolist() == [20, 20]
    read = net.read({"low_res": low})
    expected, _ = augmentation.sample(low_8, SeededNoise(0, [0, 1]).of(Purpose.LEVEL))
    torch.testing.assert_close(read["low_res"], expected)
    read = net.read({"low_res": low, "noise": noise}, train=True)
    expected, level = augmentation.train(low_8, noise.of(Purpose.LEVEL))
    torch.testing.assert_close(read["low_res"], expected)
    assert torch.equal(read["level"], level)


def test_the_blur_is_torchvisions_and_of_some_in_training_only():
    from torchvision.transforms.functional import gaussian_blur

    x, noise = torch.rand(400, 3, 6, 6) * 2 - 1, SeededNoise(0, range(400))
    soft = gaussian_blur(x, [3, 3], [0.6, 0.6])
    torch.testing.assert_close(Blur(0.6, 1.0).train(x, noise), soft, atol=1e-6, rtol=0)
    assert torch.equal(Blur(0.6, 0.0).train(x, noise), x)
    half = Blur(0.6, 0.5).train(x, noise)
    same = (half == x).flatten(1).all(1)
    assert abs(same.float().mean() - 0.5) < 0.1
    torch.testing.assert_close(half[~same], soft[~same], atol=1e-6, rtol=0)
    small = {"image_size": 8, "in_channels": 3, "channels": 8, "multipliers": [1], "attention": []}
    net = Upsampler(blur=Blur(0.6, 1.0), blocks=1, groups=4, **small)
    batch = {"low_res": x[:2, :, :4, :4], "noise": SeededNoise(0, [0, 1])}
    plain = scaled(rounded(batch["low_res"]))
    assert torch.equal(net.read(batch, False)["low_res"], plain)
    assert not torch.equal(net.read(batch, True)["low_res"], plain)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"p": 1.5}])
def test_a_blur_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=f"blur.{next(iter(wrong))}"):
        Blur(**wrong)
