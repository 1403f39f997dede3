import pytest
import torch
from swapping import Colours

from diffusion.systems.swapping.swap_figures import about, displacement, source_of


def blobs(points, side=40):
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1)
    far = (pixels[None] - torch.tensor(points)[:, None, None]).square().sum(-1)
    return (-far / 6).exp().sum(0).expand(1, 3, -1, -1)


@pytest.mark.parametrize(("move", "far"), [((0, 0), 0), ((3, 0), 3), ((-3, 4), 5)])
def test_displacement_is_how_far_points_have_moved(move, far):
    points = [(13.0, 14.0), (27.0, 13.0), (15.0, 28.0)]
    moved = [(x + move[0], y + move[1]) for x, y in points]
    out, reference = blobs(moved), blobs(points)
    found = displacement(0.2 - 0.6 * 0.5 * -out, reference, torch.tensor([points]))
    assert found.item() == pytest.approx(far, abs=1e-5)  # other grey levels do not matter


def test_where_nothing_is_seen_nothing_has_moved():
    flat = torch.zeros(2, 3, 40, 40)
    assert displacement(flat, flat, torch.full((2, 4, 2), 20.0)).tolist() == [0, 0]


def test_errors_are_in_grey_levels():
    target, truth = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)
    truth[:, :, :8] = 0.4
    out = truth.clone()
    out[0, :, 8:] += 2 / 127.5  # where the truth is like the target
    out[1, :, :8] += 2 / 127.5  # where it is not
    found = about(out, target, truth, {})
    assert found["background"].tolist() == pytest.approx([2, 0], abs=1e-4)
    assert found["truth"].tolist() == pytest.approx([2 / 2**0.5] * 2, abs=1e-4)
    assert "pose" not in found
    assert set(about(out, target, None, {})) == {"background"}


def test_a_source_is_always_somebody_else():
    data = Colours()
    data.setup("fit")
    for split in ("train", "test"):
        pictures = data.split(split)
        persons = pictures.persons[torch.tensor(list(pictures.rows))]
        for i in range(len(pictures)):
            assert persons[source_of(pictures, i)] != persons[i]
    pictures.persons = torch.zeros_like(pictures.persons)
    with pytest.raises(ValueError, match="data: pictures of one person; expected two persons"):
        source_of(pictures, 0)
