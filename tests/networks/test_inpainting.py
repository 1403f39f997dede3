import itertools

import pytest
import torch

from diffusion.networks import Inpainter, Known, UNet
from diffusion.noise import SeededNoise

SMALL = {"image_size": 8, "channels": 16, "multipliers": (1, 2), "attention": (4,), "blocks": 1}


def inputs():
    torch.manual_seed(1)
    x_t, known = torch.randn(2, 4, 3, 8, 8)
    mask = (torch.rand(4, 1, 8, 8) < 0.5).float()
    return x_t, torch.tensor([1, 30, 700, 1000]), known, mask


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Inpainter(**SMALL).eval()
    torch.nn.init.normal_(made.conv_out.weight)
    return made


@pytest.mark.parametrize("patch", [1, 2])
@torch.no_grad()
def test_with_zeros_for_the_new_channels_it_is_the_unet_to_the_last_bit(patch):
    torch.manual_seed(0)
    unet = UNet(num_classes=10, patch=patch, **SMALL).eval()
    torch.nn.init.normal_(unet.conv_out.weight)
    network = Inpainter(num_classes=10, patch=patch, **SMALL).eval()
    weights, width = unet.state_dict(), 3 * patch**2
    assert not network.conv_in.weight[:, width:].any()
    assert network.conv_in.weight.shape[1] == 7 * patch**2
    first = torch.zeros_like(network.conv_in.weight)
    first[:, :width] = weights["conv_in.weight"]
    network.load_state_dict({**weights, "conv_in.weight": first})
    x_t, t, known, mask = inputs()
    label = torch.tensor([0, 3, 10, 9])
    assert torch.equal(network(x_t, t, label, known=known, mask=mask), unet(x_t, t, label))


@torch.no_grad()
def test_it_sees_what_is_known_and_nothing_else(network):
    torch.nn.init.normal_(network.conv_in.weight)
    x_t, t, known, mask = inputs()
    out = network(x_t, t, known=known, mask=mask)
    other = torch.where(mask > 0, known, 100.0)
    assert torch.equal(network(x_t, t, known=other, mask=mask), out)
    assert not torch.allclose(network(x_t, t, known=-known, mask=mask), out, atol=1e-2)
    assert not torch.allclose(network(x_t, t, known=known, mask=1 - mask), out, atol=1e-2)


@torch.no_grad()
def test_without_a_mask_nothing_is_known(network):
    torch.nn.init.normal_(network.conv_in.weight)
    x_t, t, known, mask = inputs()
    nothing = network(x_t, t, known=0 * known, mask=0 * mask)
    assert torch.equal(network(x_t, t), nothing)
    assert torch.equal(network(x_t, t, known=known), nothing)


def test_known_and_mask_are_never_forgotten():
    network = Inpainter(num_classes=10, out_channels=6, **SMALL)
    assert network.conditions == ("known", "mask", "label")
    assert network.required == ("known", "mask")
    assert dict(network.null) == {"label": 10}
    assert (network.in_channels, network.conv_in.in_channels, network.out_channels) == (3, 7, 6)


def test_masks_are_the_samples_in_any_batch(network):
    batch = {"image": torch.randn(64, 3, 8, 8)}
    first, again = network.read(batch), network.read(batch, train=True)
    assert torch.equal(first["mask"], again["mask"])
    state = torch.get_rng_state()
    numbers = range(2**32, 2**32 + 64)
    trained = network.read({**batch, "noise": SeededNoise(0, numbers)}, train=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(trained["mask"], first["mask"])
    part = {"image": batch["image"][5:9], "noise": SeededNoise(0, numbers[5:9])}
    assert torch.equal(network.read(part)["mask"], trained["mask"][5:9])
    for read in (first, trained):
        assert read["mask"].shape == (64, 1, 8, 8)
        assert set(read["mask"].unique().tolist()) == {0.0, 1.0}
        assert torch.equal(read["known"], batch["image"] * read["mask"])


def test_a_batch_with_a_mask_keeps_it(network):
    image, mask = torch.randn(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    mask[:, :, 2:5] = 0
    read = network.read({"image": image, "mask": mask})
    assert read["mask"] is mask
    assert torch.equal(read["known"], image * mask)
    given = network.read({"image": image, "mask": mask, "known": image})
    assert given["mask"] is mask
    assert given["known"] is image
    assert network.read({"index": torch.arange(3)}) == {}


def covered(side):
    """How likely an interval covers pixel i, by listing all lengths and all places."""
    chance = torch.zeros(side, dtype=torch.float64)
    for length in range(1, side + 1):
        for first in range(side - length + 1):
            chance[first : first + length] += 1 / side / (side - length + 1)
    return chance


def test_each_pixel_is_erased_as_often_as_counting_says():
    height, width, rectangles, hidden, n = 5, 7, 3, 0.2, 40_000
    found = (
        Known(rectangles, hidden)
        .masks(height, width, SeededNoise(0, range(n)))[:, 0]
        .double()
        .mean(0)
    )
    one = 1 - covered(height)[:, None] * covered(width)
    kept = (1 - hidden) * sum(one**k for k in range(1, rectangles + 1)) / rectangles
    assert found.shape == (height, width)
    assert (found - kept).abs().max() < 4 * 0.5 / n**0.5


def test_rectangles_are_rectangles_and_all_of_them_occur():
    seen = set()
    for mask in Known(1, 0.0).masks(3, 2, SeededNoise(0, range(2000)))[:, 0]:
        rows, columns = (~mask).any(1), (~mask).any(0)
        assert torch.equal(~mask, rows[:, None] & columns)
        seen.add((tuple(rows.tolist()), tuple(columns.tolist())))
    intervals = [len(list(itertools.combinations(range(side + 1), 2))) for side in (3, 2)]
    assert len(seen) == intervals[0] * intervals[1]


@pytest.mark.parametrize(
    ("hidden", "low", "high"), [(0.0, 0.0, 0.08), (0.3, 0.3, 0.4), (1.0, 1, 1)]
)
def test_of_some_images_nothing_is_left(hidden, low, high):
    found = Known(3, hidden).masks(8, 8, SeededNoise(0, range(5000)))
    nothing = (~found).flatten(1).all(1).double().mean()
    assert low <= nothing <= high


@pytest.mark.parametrize("wrong", [{"rectangles": 0}, {"hidden": -0.1}, {"hidden": 1.5}])
def test_numbers_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"network.{name}: .*; expected"):
        Inpainter(**SMALL, **wrong)
