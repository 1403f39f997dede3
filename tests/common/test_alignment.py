import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage.transform import SimilarityTransform

from diffusion.common.alignment import TEMPLATE, Face, inverse, similarity, warped


def test_the_similarity_is_that_of_scikit_image():
    points = torch.rand(6, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor(TEMPLATE, dtype=torch.float64)
    for found, one in zip(similarity(points, wanted), points):
        expected = SimilarityTransform.from_estimate(one.numpy(), wanted.numpy())
        np.testing.assert_allclose(found, expected.params[:2], atol=1e-12)


def test_a_similarity_is_found_again_and_mirrors_nothing():
    angle = torch.tensor(0.4, dtype=torch.float64)
    turn = 1.7 * torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    points = torch.tensor(TEMPLATE, dtype=torch.float64)
    moved = points @ turn.T + torch.tensor([3.0, -2.0])
    found = similarity(points[None], moved)[0]
    assert torch.allclose(found, torch.cat([turn, torch.tensor([[3.0], [-2.0]])], 1).double())
    mirrored = similarity(points[None], points * torch.tensor([-1.0, 1.0]))[0]
    assert mirrored[:, :2].det() > 0


def test_there_and_back():
    matrix = torch.tensor([[[0.9, -0.4, 3.0], [0.4, 0.9, -1.0]]], dtype=torch.float64)
    back = inverse(matrix)
    x = torch.rand(5, 2, dtype=torch.float64)
    there = x @ matrix[0, :, :2].T + matrix[0, :, 2]
    assert torch.allclose(there @ back[0, :, :2].T + back[0, :, 2], x)


def test_warping_is_bilinear_as_in_scipy():
    image = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor([[[1.2, -0.3, 2.0], [0.3, 1.2, 1.0]]], dtype=torch.float64)
    found = warped(image, matrix, (16, 18))[0, 0]
    y, x = np.mgrid[:16, :18] + 0.5
    back = inverse(matrix)[0].numpy()
    across, down = np.einsum("ij,jhw->ihw", back, np.stack([x, y, np.ones_like(x)])) - 0.5
    expected = map_coordinates(image[0, 0].numpy(), [down, across], order=1, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_warping_by_halves_takes_the_means_of_squares():
    image = torch.rand(2, 3, 16, 16)
    half = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]).expand(2, -1, -1)
    expected = torch.nn.functional.avg_pool2d(image, 2)
    assert torch.allclose(warped(image, half, (8, 8)), expected, atol=1e-5)
    same = torch.eye(2, 3)[None].expand(2, -1, -1)
    assert warped(image, same, (16, 16)) == pytest.approx(image, abs=1e-5)


# Five points that MTCNN finds in scikit-image's pictures: a man from the side, a woman from ahead.
SIDE_ON = ((134.4, 147.4), (153.0, 148.6), (151.8, 168.9), (131.9, 181.3), (145.0, 181.8))
AHEAD = ((105.0, 101.7), (148.2, 104.1), (125.1, 129.4), (102.4, 140.7), (146.3, 143.2))


def test_a_profile_is_told_by_its_nose():
    for points, expected in ((SIDE_ON, True), (AHEAD, False), (TEMPLATE, False)):
        face = Face((0.0, 0.0, 1.0, 1.0), torch.tensor(points), 1.0)
        assert face.is_profile == expected
        turned = torch.tensor(points) @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
        assert Face((0.0, 0.0, 1.0, 1.0), turned, 1.0).is_profile == expected
