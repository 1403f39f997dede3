"""Line drawings that come with emoji: they stay with their picture, whatever reads it."""

from pathlib import Path

import pytest
import torch
from emoji_archives import GROUPS, codes_of, emojibase, npm, pack

from diffusion.data import Beside, Canny, Control, Digits, Drawn, Emoji
from diffusion.data.emoji import drawings
from diffusion.data.emoji.drawings import Drawings
from diffusion.data.emoji.line_drawings import with_lines
from diffusion.data.emoji.table import Entry
from diffusion.metrics.control_score import f1

REAL = Path(__file__).parents[2] / "data"
CONCEPTS = [(f"1F{i:03X}", f"face {i}", 0, False) for i in range(60)]
CONCEPTS += [(f"2F{i:03X}", f"worker {i}", 1, True) for i in range(10)]
CONCEPTS += [("1F968", "mango", 2, False), ("3F001", "melon", 2, False)]


def strokes(i):
    """A black column and a black row, at places that say which emoji it is."""
    return f'<path d="M{4 * (i % 5)} 0h4v32h-4z"/><path d="M0 {4 * (i % 8)}h32v4h-32z"/>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Yellow emoji with black lines; the line drawings of the last two are wrong and missing."""
    root = tmp_path_factory.mktemp("lines")
    (root / "packages").mkdir()
    codes = codes_of(CONCEPTS)
    ground = '<path fill="#fc0" d="M0 0h32v32H0z"/>'
    colour = {code: {"body": ground + strokes(i)} for i, code in enumerate(codes)}
    black = {
        f"black/svg/{code}.svg": f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f"{strokes(i + 3 * (code == '1F968'))}</svg>"
        for i, code in enumerate(codes)
        if code != "3F001"
    }
    table = {"en/data.json": emojibase(CONCEPTS), "meta/groups.json": GROUPS}
    of = {
        "openmoji": pack(root / "packages/a-1.0.tgz", colour),
        "lines": npm(root / "packages/b-1.0.tgz", {**black, "color/svg/1F000.svg": ""}),
    }
    return root, {"PACKS": of, "EMOJIBASE": npm(root / "packages/c-1.0.tgz", table)}


@pytest.fixture
def made(folder, monkeypatch):
    root, packages = folder
    for name, package in packages.items():
        monkeypatch.setattr(drawings, name, package)

    def make(**kwargs):
        controls = {"lines": Drawn(), "edges": Canny()}
        of = {"root": str(root), "size": 8, "styles": ["openmoji"], "controls": controls}
        data = Emoji(**of | kwargs)
        data.prepare_data()
        with pytest.warns(UserWarning, match=r"left out 2 of 92 pictures, .* mango, melon"):
            data.setup("fit")
        return data

    return make


def are_its_own(batch):
    black = (batch["image"] == -1).all(1, keepdim=True)
    assert 15 <= black[0].sum() <= 16
    return torch.equal(batch["lines"], black.float())


def test_lines_stay_with_their_picture_in_every_split_and_mirrored(made):
    data = made(flip=True, batch_size=50)
    for split in ("train", "val", "test"):
        batch = next(data.batches(split))
        assert are_its_own(batch)
        assert torch.equal(batch["edges"], Canny()(batch["image"]))
    reader, left = iter(data.train_dataloader()), 0
    for _ in range(4):
        batch = data.on_after_batch_transfer(next(reader), 0)
        assert are_its_own(batch)
        left += (batch["lines"].mean((1, 2)).argmax(-1) < 4).float().mean().item() / 4
    assert 0.2 < left < 0.8  # where it is in all that are not mirrored, and in few that are


def test_every_skin_tone_has_its_own(made):
    data = made(controls={"lines": Drawn()})
    pictures = data.train_set
    toned = next(k for k in range(len(pictures)) if len(pictures.groups[k]) == 3)
    versions = [data.on_after_batch_transfer(pictures.visit([toned], [v]), 0) for v in range(3)]
    assert all(are_its_own(batch) for batch in versions)
    assert len({tuple(batch["lines"].flatten().tolist()) for batch in versions}) == 3


def test_samples_are_asked_for_by_the_lines_of_their_caption(made):
    data = made()
    batch = data.on_after_batch_transfer(data.request(range(5)), 0)
    real = next(data.batches("val"))
    of = {text: lines for text, lines in zip(real["text"], real["lines"])}
    assert batch["lines"].unique().tolist() == [0, 1]
    for text, lines in zip(batch["text"], batch["lines"]):
        assert torch.equal(lines, of[text])
    before = data.asked()["controls"]
    assert "lines: Drawn(channels=1)" in before
    data.val_set.pictures.beside["lines"][:] = 0
    assert data.asked()["controls"] != before


def test_other_data_and_styles_have_none(tmp_path):
    controls: dict[str, Control] = {"lines": Drawn()}
    with pytest.raises(ValueError, match=r"data\.styles: None; expected \[openmoji\], .*lines"):
        Emoji(root=str(tmp_path), controls=controls)
    with pytest.raises(
        ValueError, match=r"data\.controls\.lines: Drawn.* as the pictures of Digits"
    ):
        Digits(controls=controls)
    with pytest.raises(ValueError, match=r"data\.controls\.depth: Beside.*; expected Drawn, as"):
        Emoji(root=str(tmp_path), styles=["openmoji"], controls={"depth": Beside()})


def test_white_is_twice_what_lines_cover():
    entry = Entry("1f600", "1f600", "face", "face-smiling")
    black = torch.tensor([255, 200, 128, 127, 0], dtype=torch.uint8).view(1, 1, 1, 5)
    black = black.expand(1, 3, 1, 5)
    one = Drawings(black, [entry], [["black"]])
    _, white = with_lines(one, one, lambda text: pytest.fail(text))
    assert white.flatten().tolist() == [0, 110, 254, 255, 255]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:data.controls. left out 15 of 3674")
def test_the_real_ones():
    """Edges of the colour pictures are within a pixel of the lines drawn, others' are not."""
    data = Emoji(root=str(REAL), styles=["openmoji"], controls={"lines": Drawn()})
    data.prepare_data()  # fetched and drawn once, which takes minutes
    data.setup("fit")
    assert sum(len(pictures.each()) for pictures in data.sets().values()) == 3674 - 15
    batch = next(data.batches("val"))
    table = f1(Drawn()(batch["image"]), batch["lines"])
    n, own = len(table), table.diagonal().mean().item()
    assert own > 0.92
    assert (table.sum().item() - n * own) / (n * n - n) < 0.65
