"""Controls against other people's image processing."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from scipy import ndimage
from skimage.feature import canny
from skimage.measure import label
from skimage.transform import resize

from diffusion.data import Canny, ColourBlocks, LowPass, Outline, Silhouette
from diffusion.data.controls.base import check_control, luma, reached


def photo(name, size):
    """A photograph as (1, C, size, size) in [−1, 1]."""
    pixels = getattr(skimage.data, name)()
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    side = min(pixels.shape[:2])
    found = resize(pixels[:side, :side] / 255, (size, size), anti_aliasing=True)
    return torch.from_numpy(found).permute(2, 0, 1)[None].float() * 2 - 1


@pytest.fixture
def drawings():
    """White rings and dark discs, some cut by the border, on grounds of one colour; (9, 3, 32, 32).

    The insides of the rings have the ground's colour.
    """
    random = np.random.default_rng(0)
    y, x = np.indices((32, 32))
    images = np.empty((9, 32, 32, 3))
    for image in images:
        image[:] = random.uniform(0, 1, 3)
        for _ in range(3):
            i, j, r = *random.uniform(-2, 34, 2), random.uniform(4, 9)
            far = np.hypot(y - i, x - j)
            ring = (far < r) & ((far > r - 1.5) | (random.random() < 0.5))
            image[ring] = random.uniform(0, 1, 3)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() * 2 - 1


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("name", ["camera", "astronaut", "chelsea", "coffee", "coins", "page"])
def test_edges_are_those_of_scikit_image(name, size):
    image = photo(name, size)
    y = luma(image)[0, 0].numpy().astype(np.float64)
    for sigma, low, high in ((1.0, 0.1, 0.2), (2.0, 0.05, 0.3)):
        found = Canny(sigma, low, high)(image)
        assert set(found.unique().tolist()) <= {0, 1}
        wanted = canny(y, sigma, low, high)
        assert wanted.mean() > 0.04 or sigma > 1
        assert (found[0, 0].numpy() != wanted).mean() <= 0.002


def test_edges_turn_and_mirror_with_the_picture():
    """Also where both sides of a step are equally steep, and rounding would decide."""
    image = torch.full((1, 1, 16, 16), -1.0)
    image[..., 5:11, 4:12] = 1
    edges = Canny()(image)
    assert edges.sum() > 20
    for turned in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
        assert torch.equal(Canny()(turned(image)), turned(edges))
    both = torch.cat([image, photo("camera", 16)])
    assert torch.equal(Canny()(both)[:1], edges)


def test_all_are_pictures_in_0_to_1():
    for control in (Canny(), ColourBlocks(4), LowPass(4), Silhouette(), Outline()):
        for shape in ((1, 8, 8), (3, 16, 24)):
            check_control("any", control, shape)


def test_grey_is_what_pillow_makes_of_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = np.array(Image.fromarray(pixels).convert("L"))
    assert np.abs(luma(image)[0, 0].numpy() * 255 - wanted).max() < 1


def test_a_silhouette_is_all_but_the_ground_that_the_border_reaches(drawings):
    filled = 0
    for image, found in zip(drawings, Silhouette()(drawings)):
        x = (image.permute(1, 2, 0).numpy() + 1) / 2
        frame = np.ones((32, 32), dtype=bool)
        frame[1:-1, 1:-1] = False
        values, counts = np.unique(x[frame].round(4), axis=0, return_counts=True)
        ground = np.abs(x - values[counts.argmax()]).max(-1) <= 0.1
        areas = np.array(label(ground, connectivity=1))  # side by side
        outside = np.isin(areas, np.unique(areas[frame & ground])) & ground
        assert np.array_equal(found[0].numpy(), 1 - outside)
        filled += (ground & ~outside).sum()
    assert filled > 50  # insides that have the ground's colour


def test_what_is_reached_stays_inside_the_region():
    random = torch.Generator().manual_seed(0)
    where = torch.rand(20, 1, 24, 24, generator=random) < 0.55
    start = torch.rand(20, 1, 24, 24, generator=random) < 0.02
    for corners, cells in ((True, np.ones((3, 3))), (False, None)):
        found = reached(start, where, corners)
        for k in range(20):
            mask = where[k, 0].numpy()
            wanted = ndimage.binary_propagation(start[k, 0].numpy() & mask, cells, mask)
            assert np.array_equal(found[k, 0].numpy(), wanted)


def test_blocks_have_the_mean_of_their_square(drawings):
    found = ColourBlocks(8)(drawings)
    for k in range(4):
        square = drawings[:, :, 8 * k : 8 * k + 8, 24:]
        wanted = (square.mean((2, 3), keepdim=True) + 1) / 2
        torch.testing.assert_close(found[:, :, 8 * k : 8 * k + 8, 24:], wanted.expand_as(square))


def test_a_low_pass_is_pillows_enlargement_of_the_means(drawings):
    found = LowPass(4)(drawings)
    small = ColourBlocks(4)(drawings)[:, :, ::4, ::4]
    for k, channel in ((0, 0), (3, 2)):
        image = Image.fromarray(small[k, channel].numpy(), mode="F")
        wanted = np.array(image.resize((32, 32), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found[k, channel].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("control", [Canny(), Silhouette(), LowPass(4), ColourBlocks(4)])
def test_a_grey_picture_has_the_control_of_the_same_in_colour(control):
    image = photo("camera", 32)
    found = control(image)
    assert found.shape == (1, control.channels, 32, 32)
    torch.testing.assert_close(found, control(image.expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Canny(sigma=0), r"data\.controls\.sigma: 0; expected"),
        (lambda: Canny(low=0.3), r"data\.controls\.low: 0\.3; expected 0 < low ≤ high"),
        (lambda: Silhouette(2), r"data\.controls\.tolerance: 2; expected 0 … 1"),
        (lambda: ColourBlocks(0), r"data\.controls\.side: 0; expected at least 1"),
        (lambda: LowPass(5)(torch.zeros(1, 1, 8, 8)), "5; expected a divisor of 8 and 8"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
