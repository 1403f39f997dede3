import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import Digits, SwissRoll
from diffusion.data.requests.edits import Edits


@pytest.fixture
def folder(tmp_path):
    """Three pictures of 8 x 8 pixels, and masks."""
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in (2, 0, 1):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{i}.png")
    white = np.zeros((8, 8), dtype=np.uint8)
    white[2:6, 3:7] = 255
    Image.fromarray(white).save(tmp_path / "white.png")
    Image.fromarray(0 * white).save(tmp_path / "black.png")
    Image.fromarray(white[:4]).save(tmp_path / "flat.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("hello")
    return tmp_path


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path))).float() / 255 * 2 - 1


def repainted(*box):
    x0, y0, x1, y1 = box
    where = torch.zeros(1, 8, 8)
    where[:, y0:y1, x0:x1] = 1
    return where


def test_sample_i_has_picture_i_mod_n(folder):
    given = Edits(str(folder / "pictures"), None, (1, 8, 8))
    batch = given.ask([0, 1, 2, 3, 10])
    assert set(batch) == {"known"}
    expected = torch.stack(
        [pixels(folder / f"pictures/{i % 3}.png")[None] for i in (0, 1, 2, 3, 10)]
    )
    torch.testing.assert_close(batch["known"], expected)
    assert batch["known"].dtype == torch.float32


@pytest.mark.parametrize("mask", ["3,2,7,6", " 3, 2, 7, 6 ", "white.png"])
def test_white_and_the_box_are_repainted_the_rest_is_known(folder, mask):
    mask = str(folder / mask) if "png" in mask else mask
    batch = Edits(str(folder / "pictures/1.png"), mask, (1, 8, 8)).ask([4, 5])
    assert torch.equal(batch["mask"], (1 - repainted(3, 2, 7, 6)).expand(2, 1, 8, 8))
    assert torch.equal(batch["known"][0], batch["known"][1])


def test_pictures_and_masks_are_resized_and_cropped_alike(folder):
    large = np.zeros((32, 48, 3), dtype=np.uint8)
    large[:, :24] = 255  # of the square in the middle, the left half
    Image.fromarray(large).save(folder / "large.png")
    batch = Edits(str(folder / "large.png"), str(folder / "large.png"), (3, 8, 8)).ask([0])
    assert torch.equal(batch["mask"][0], 1 - repainted(0, 0, 4, 8))
    assert (batch["known"][0, :, :, :3] > 0.9).all()
    assert (batch["known"][0, :, :, 5:] < -0.9).all()
    small = Edits(str(folder / "large.png"), str(folder / "white.png"), (3, 8, 8)).ask([0])
    assert torch.equal(small["mask"][0], 1 - repainted(3, 2, 7, 6))  # as large as the samples


def test_the_digest_changes_with_every_pixel(folder):
    def digest(mask="1,1,2,2"):
        return Edits(str(folder / "pictures"), mask, (1, 8, 8)).digest()

    first = digest()
    assert first == digest()
    assert len({first, digest("1,1,2,3"), digest(None)}) == 3
    changed = np.array(Image.open(folder / "pictures/2.png"))
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(folder / "pictures/2.png")
    assert digest() != first


WRONG = {
    ("nowhere.png", None): (FileNotFoundError, "data.edit: .*nowhere.png; expected .*no such file"),
    ("empty", None): (FileNotFoundError, "data.edit: .*empty; expected pictures"),
    ("text.png", None): (ValueError, "data.edit: .*text.png; expected a picture"),
    ("pictures", "nowhere.png"): (FileNotFoundError, "data.mask: .*a box such as 2,2,6,6"),
    ("pictures", "text.png"): (ValueError, "data.mask: .*text.png; expected a picture"),
    ("pictures", "flat.png"): (ValueError, "data.mask: .*flat.png is 8 x 4; expected 8 x 8"),
    ("pictures", "black.png"): (ValueError, "black.png' has nothing to repaint; .*white"),
    ("pictures", "3,3,3,6"): (ValueError, "'3,3,3,6' has nothing to repaint"),
    ("pictures", "0,0,9,8"): (ValueError, "data.mask: '0,0,9,8'; .*inside 0,0,8,8"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_wrong_is_said_in_one_line(folder, wrong):
    edit, mask = wrong
    kind, words = WRONG[wrong]
    mask = str(folder / mask) if mask and "png" in mask else mask
    with pytest.raises(kind, match=words) as caught:
        Edits(str(folder / edit), mask, (1, 8, 8))
    assert "\n" not in str(caught.value)


def test_only_square_pictures_are_continued_from(folder):
    with pytest.raises(ValueError, match=r"data.edit: .*; expected null"):
        Edits(str(folder / "pictures"), None, (2,))
    assert SwissRoll().edits is None


def test_requests_get_it_and_pictures_to_learn_from_do_not(folder):
    data = Digits(edit=str(folder / "pictures"), mask="0,0,4,4", batch_size=4)
    batch = data.on_after_batch_transfer(data.request([7, 8]), 0)
    assert set(batch) == {"index", "label", "known", "mask"}
    assert torch.equal(batch["known"], data.edits.ask([7, 8])["known"])
    assert set(next(data.batches("test"))) == {"image", "label"}
    assert set(Digits().on_after_batch_transfer(Digits().request([0]), 0)) == {"index", "label"}


def test_a_mask_without_a_picture_is_refused():
    with pytest.raises(ValueError, match=r"data.mask: '0,0,4,4'; expected data.edit too"):
        Digits(mask="0,0,4,4")
