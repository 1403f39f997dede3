"""Whom samples are asked to be, and in which pose: by hand, or as real pictures have it."""

import shutil
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from test_avatars import REAL, SMALL, STYLES
from torch import Tensor

from diffusion.data import Avatars, KeyPoints
from diffusion.data.identities.key_points import key_points

POINTS = [[0.4, 0.5], [0.6, 0.5], [0.5, 0.6], [0.42, 0.7], [0.58, 0.7]]
TEXT = "\n".join(f"{x} {y}" for x, y in POINTS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("persons")
    (folder / "packages").mkdir()
    shutil.copy(REAL / f"{STYLES.stem}-py3-none-any.whl", folder / "packages")
    made(folder)
    Image.new("RGB", (40, 32), (200, 90, 30)).save(folder / "me.png")
    Image.new("RGB", (64, 64), (0, 90, 30)).save(folder / "other.png")
    (folder / "pose.txt").write_text(TEXT)
    return folder


def made(folder, **given):
    controls = {"pose": KeyPoints()}
    data = Avatars(root=str(folder), ask="test", controls=controls, **SMALL, **given)
    data.prepare_data()
    data.setup("fit")
    return data


def asked(data, numbers=range(5)):
    return data.on_after_batch_transfer(data.request(numbers), 0)


def test_samples_are_of_the_persons_whose_captions_they_have(root):
    data = made(root)
    batch, split = asked(data), data.split("test")
    rows = data.likenesses().rows(range(5))
    assert torch.equal(batch["person"], split.conditions(rows)["person"])
    shown = split.__getitems__(rows)
    assert torch.equal(batch["identity"], data.normalize(shown["identity"]))
    assert not (shown["identity"] == shown["image"]).flatten(1).all(1).any()  # another picture
    drawn = key_points(batch["landmarks"], 32) / 255
    torch.testing.assert_close(batch["pose"], drawn)
    assert "identity" in data.asked()


def test_a_person_and_a_pose_are_given_by_hand(root):
    data = made(
        root, prompts=["a person"], identity=str(root / "me.png"), pose=str(root / "pose.txt")
    )
    batch = asked(data, [0, 1])
    assert batch["identity"].shape == (2, 3, 32, 32)
    assert torch.allclose(batch["identity"][0, :, 0, 0], torch.tensor([200, 90, 30]) / 127.5 - 1)
    wanted = key_points(32 * torch.tensor(POINTS)[None], 32)[0] / 255
    for one in batch["pose"]:
        torch.testing.assert_close(one, wanted)
    other = made(root, identity=str(root / "me.png"), pose="test:2")
    assert data.asked()["pose"] != other.asked()["pose"]
    given = asked(other)["pose"]  # in the place of the real pictures' own
    points = other.split("test").conditions([2])["landmarks"]
    torch.testing.assert_close(given, (key_points(points, 32) / 255).expand(5, -1, -1, -1))


@dataclass
class Face:
    points: Tensor


def finder(n):
    return lambda image: [Face(image.shape[-1] * torch.tensor(POINTS))] * n


def test_a_pose_is_found_in_a_photograph_or_beside_it(root, tmp_path):
    photo = str(shutil.copy(root / "other.png", tmp_path / "other.png"))
    found = made(root, pose=photo, finder=finder(1)).posing.points
    torch.testing.assert_close(found, torch.tensor(POINTS)[None])
    for n, words in ((0, "no face found"), (2, "2 faces found")):
        with pytest.raises(
            ValueError, match=rf"data.pose: .*other.png; expected one face.*{words}"
        ):
            _ = made(root, pose=photo, finder=finder(n)).posing
    with pytest.raises(ValueError, match=r"expected other.txt beside it.*misses many drawn faces"):
        _ = made(root, pose=photo).posing
    (tmp_path / "other.txt").write_text(TEXT)
    torch.testing.assert_close(made(root, pose=photo).posing.points, found)
    torch.testing.assert_close(made(root, pose=str(tmp_path)).posing.points, found)


WRONG = {
    "four lines": (TEXT.rsplit("\n", 1)[0], r"expected five lines x y"),
    "words": ("a b\n" * 5, r"expected five lines x y"),
    "pixels": ("20 30\n" * 5, r"0 … 1, not pixels"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_points_that_are_none_are_refused(wrong, root, tmp_path):
    text, message = WRONG[wrong]
    (tmp_path / "wrong.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        _ = made(root, pose=str(tmp_path / "wrong.txt")).posing


def test_what_is_not_there_or_twice_is_refused(root):
    with pytest.raises(FileNotFoundError, match=r"data.pose: .*none.png; expected a picture or a"):
        _ = made(root, pose="none.png").posing
    with pytest.raises(FileNotFoundError, match=r"data.identity: .*none.png; expected a picture"):
        _ = made(root, identity="none.png").identified
    with pytest.raises(ValueError, match=r"data.pose: test:9999; expected the number of a picture"):
        _ = made(root, pose="test:9999").posing
    with pytest.raises(ValueError, match=r"data.pose: 'test:1'; expected null beside data.control"):
        made(root, pose="test:1", control="edges.png")
