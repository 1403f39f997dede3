import math

import torch

from diffusion.common.alignment import TEMPLATE, inverse, similarity
from diffusion.systems.swapping.paste_back import aligned_face, face_mask, paste_back


def posed(angle, scale, move, size=1.0):
    """The template turned, scaled and moved, with the matrix that does it."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    points = size * torch.tensor(TEMPLATE, dtype=torch.float64) @ turn.T
    return points + torch.tensor(move, dtype=torch.float64), turn


def smooth(H, W):
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return torch.stack([torch.sin(x / 9), torch.cos(y / 11), torch.sin((x + y) / 13)]).float()


def test_alignment_is_the_inverse_of_the_pose_and_back():
    points, turn = posed(0.4, 70.0, (31.0, 22.0))
    matrix = similarity(points[None], 64 * torch.tensor(TEMPLATE))
    assert torch.allclose(matrix[0, :, :2] @ turn, 64 * torch.eye(2).double(), atol=1e-9)
    assert torch.allclose(
        points @ matrix[0, :, :2].T + matrix[0, :, 2], 64 * torch.tensor(TEMPLATE).double()
    )
    back = inverse(inverse(matrix))
    assert torch.allclose(back, matrix)
    picture = smooth(120, 140)
    face, _ = aligned_face(picture, points, 64)
    again = aligned_face(face[0], 64 * torch.tensor(TEMPLATE), 64)[0]
    assert torch.allclose(again, face, atol=1e-5)  # what is aligned already stays


def test_an_unchanged_face_changes_nothing():
    picture = smooth(90, 130)
    points, _ = posed(-0.3, 60.0, (40.0, 12.0))
    face, matrix = aligned_face(picture, points, 32)
    assert torch.equal(paste_back(picture, face, face, matrix, face_mask(32)), picture)


def test_a_change_comes_back_where_it_was_and_nowhere_else():
    picture = torch.zeros(3, 100, 120)
    points, _ = posed(0.2, 50.0, (50.0, 20.0))
    face, matrix = aligned_face(picture, points, 64)
    found = paste_back(picture, face, face + 0.5, matrix, face_mask(64))
    middle = points.mean(0)  # inside the mask
    assert torch.allclose(found[:, int(middle[1]), int(middle[0])], torch.tensor(0.5), atol=1e-3)
    back = inverse(matrix)[0]
    corners = torch.tensor([[0.0, 0.0], [64.0, 64.0], [0.0, 64.0], [64.0, 0.0]]).double()
    for x, y in (corners @ back[:, :2].T + back[:, 2]).tolist():
        if 0 <= x < 120 and 0 <= y < 100:
            assert found[:, int(y), int(x)].abs().max() == 0
    assert found[:, 95:].abs().max() == 0
    area = 0.5 * face_mask(64).mean() * (1 / matrix[0, :, :2].det()) * 64**2
    assert torch.allclose(found[0].sum().double(), area, rtol=0.01)  # nothing lost on the way


def test_pixel_for_pixel_it_is_the_mask_times_the_change():
    picture, matrix = smooth(32, 32), torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]).double()
    change = 0.1 * torch.rand(1, 1, 32, 32)  # a grey model on a picture in colour
    found = paste_back(0.5 * picture, change * 0, change, matrix, face_mask(32))
    assert torch.allclose(found, 0.5 * picture + face_mask(32) * change[0], atol=1e-5)


def test_the_mask_is_one_on_the_points_and_nothing_at_the_edges():
    mask = face_mask(64)[0]
    assert mask.max() == 1
    assert all(mask[int(64 * y), int(64 * x)] > 0.7 for x, y in TEMPLATE)
    edges = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert edges.max() == 0
