"""Several captions a picture: which is shown, and where they come from."""

import json
from collections import Counter

import pytest
import torch

from diffusion.data import AltText, CaptionFile, ImageText, Memory
from diffusion.data.captions.blend import Blend, blended
from diffusion.data.reading.order import Positions, Shuffled


def test_captions_are_drawn_as_often_as_their_weights_say():
    """Within four standard deviations of the binomial, over pictures and over visits."""
    for share in (0.05, 0.35, 0.95):
        blend = Blend([(share, share, 1.0)] * 400, seed=3)
        picks = [[blend.pick(i, v) for v in range(50)] for i in range(400)]
        n = 400 * 50
        counts = Counter(pick for row in picks for pick in row)
        assert counts[1] == 0
        assert abs(counts[0] - n * share) < 4 * (n * share * (1 - share)) ** 0.5
        of_visit = sum(row[7] == 0 for row in picks)
        assert abs(of_visit - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5
    other = Blend([(0.5, 1.0)] * 100, seed=4), Blend([(0.5, 1.0)] * 100, seed=5)
    assert len({tuple(blend.pick(i, 0) for i in range(100)) for blend in other}) == 2


def test_weights_are_divided_among_the_captions_of_a_source():
    own = {"a": [["a1"], ["a2"], [], []], "b": [["b1", "b2"], [], ["b3"], []]}
    said = []
    texts, bounds = blended({"a": 0.25, "b": 0.75}, own, {}, list("wxyz"), said.append)
    assert texts == [["a1", "b1", "b2"], ["a2"], ["b3"], []]
    assert bounds == [(0.25, 0.625, 1.0), (1.0,), (1.0,), ()]
    assert [x.split(" pictures")[0] for x in said] == ["captions.a: 2 of 4", "captions.b: 2 of 4"]
    _, bounds = blended({"a": 1.0, "b": 0.0}, own, {}, list("wxyz"), said.append)
    assert bounds == [(1.0, 1.0, 1.0), (1.0,), (1.0,), ()]
    assert len(said) == 3


def test_a_resumed_run_and_several_processes_draw_the_same():
    texts = [[f"{i} {kind}" for kind in "abc"] for i in range(10)]
    blend = Blend([(0.2, 0.5, 1.0)] * 10, seed=1)
    pictures = Memory(torch.zeros(10, 1, 1, 1, dtype=torch.uint8), None, texts, {}, blend)

    def read(start, size, world, batches):
        """The texts of positions, as several processes read them together."""
        found = {}
        for rank in range(world):
            positions = iter(Positions(lambda: start, size, rank, world))
            shuffled = Shuffled(pictures, 1, False)
            for _ in range(batches):
                at = next(positions)
                found |= zip(at, shuffled.__getitems__(at)["text"])
        return found

    alone = read(0, 6, 1, 10)
    assert len(alone) == 60
    assert read(0, 2, 3, 10) == alone
    assert read(24, 6, 1, 6) == {k: v for k, v in alone.items() if k >= 24}
    visits = [[text for text in alone.values() if text.startswith(f"{i} ")] for i in range(10)]
    assert all(len(x) == 6 for x in visits)
    assert any(len({*x}) > 1 for x in visits)


@pytest.fixture
def folder(tmp_path, photo):
    for i in range(20):
        photo(9, 9, seed=i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"original {i}")
        more = {"synthetic": [f"detailed {i}", f"more detailed {i}"], "width": 9}
        (tmp_path / f"{i}.json").write_text(json.dumps(more))
    return tmp_path


def made(root, **kwargs):
    data = ImageText(root=str(root), **{"size": 8, "val_share": 0.0, "ask": "train", **kwargs})
    data.setup("fit")
    return data


def test_a_folder_has_several_captions_a_picture(folder):
    (folder.parent / "far.json").write_text(json.dumps({f"{i}": f"far {i}" for i in range(20)}))
    far = CaptionFile(str(folder.parent / "far.json"))
    weights = {"caption": 0.1, "synthetic": 0.6, "far": 0.3}
    data = made(folder, captions=weights, sources={"far": far}, batch_size=20)
    assert len(data.texts) == 80  # an encoder reads all of them once
    batches = iter(data.train_dataloader())
    seen = Counter(text.split()[0] for _ in range(30) for text in next(batches)["text"])
    for kind, share in (("original", 0.1), ("detailed", 0.3), ("more", 0.3), ("far", 0.3)):
        assert abs(seen[kind] - 600 * share) < 4 * (600 * share * (1 - share)) ** 0.5
    assert data.request(range(20))["text"] == data.request(range(20))["text"]
    again = made(folder, captions={**weights, "caption": 0.2, "far": 0.2}, sources={"far": far})
    assert again.fingerprint("train") != data.fingerprint("train")
    one = made(folder)
    assert {text.split()[0] for text in one.texts} == {"original"}


def test_batches_have_prompts_too(folder):
    data = made(folder, captions={"synthetic": 1.0}, prompt="caption", batch_size=4)
    batch = next(iter(data.train_dataloader()))
    assert [x.split()[-1] for x in batch["text"]] == [x.split()[-1] for x in batch["prompt"]]
    assert {x.split()[0] for x in batch["prompt"]} == {"original"}
    with pytest.raises(ValueError, match=r"data\.prompt: short, no captions of this kind"):
        made(folder, prompt="short")


NAMES = [f"{i}.png" for i in range(2000)]
TEXTS = [[f"a small picture of number {i} in blue"] for i in range(2000)]


def spoilt(share, seed=0, names=NAMES, texts=TEXTS):
    return AltText("short", share, seed).captions(names, lambda _: texts)


def test_alt_texts_are_spoilt_in_four_ways_by_seed_and_picture():
    half, all_ = spoilt(0.5), spoilt(1.0)
    assert half == spoilt(0.5)
    assert half != spoilt(0.5, seed=1)
    assert spoilt(0.0) == TEXTS
    changed = [i for i in range(2000) if half[i] != TEXTS[i]]
    assert abs(len(changed) - 1000) < 4 * 500**0.5
    assert all(half[i] == all_[i] for i in changed)  # a larger share spoils these, and more
    kinds, every = Counter(), {text for [text] in TEXTS}
    for [text], [own] in zip(all_, TEXTS):
        kinds["short"] += text in own.split()
        kinds["truncated"] += text == "a small picture of"
        kinds["swapped"] += text != own and text in every
        kinds["filler"] += own in text and " IMG_" in text
    assert sum(kinds.values()) == 2000
    assert all(abs(n - 500) < 4 * 375**0.5 for n in kinds.values())
    fewer = spoilt(1.0, names=NAMES[:1000], texts=TEXTS[:1000])
    assert all(a == b for a, b in zip(fewer, all_) if a[0] not in every)
    assert spoilt(1.0, names=["x"], texts=[["one two"]])[0]


@pytest.mark.parametrize(
    ("captions", "error"),
    [
        ({"caption": 0.5, "other": 0.5}, r"data\.captions: other, no captions of this kind; .*far"),
        (
            {"caption": 0.5},
            r"data\.captions: .*expected weights .* that sum to 1, they sum to 0\.5",
        ),
        ({"caption": 1.5, "synthetic": -0.5}, r"data\.captions: .*weights of 0 or more"),
        ({}, r"data\.captions: \{\}; expected weights"),
        ({"far": 1.0}, r"data\.sources: .*none\.json; expected a JSON file, there is none"),
        ({"bad": 1.0}, r"data\.sources: .*bad\.json; expected JSON \{picture: caption"),
        ({"list": 1.0}, r"data\.sources: .*list\.json; expected JSON \{picture: caption"),
        ({"others": 1.0}, r"data\.sources: .*expected captions of pictures such as 0\.png, it has"),
        ({"loop": 1.0}, r"data\.sources: made of loop; expected one of"),
        ({"lost": 1.0}, r"data\.sources: made of nothing; expected one of caption"),
    ],
)
def test_what_cannot_be_is_one_line(folder, captions, error):
    where = folder.parent
    for name, text in (("bad", "{"), ("list", '{"0": [1]}'), ("others", '{"x": "y"}')):
        (where / f"{name}.json").write_text(text)
    files = {name: CaptionFile(str(where / f"{name}.json")) for name in ("bad", "list", "others")}
    sources = {**files, "far": CaptionFile(str(where / "none.json"))}
    sources |= {"loop": AltText("loop", 0.5), "lost": AltText("nothing", 0.5)}
    with pytest.raises((ValueError, FileNotFoundError), match=error) as caught:
        made(folder, captions=captions, sources=sources)
    assert "\n" not in str(caught.value)


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"AltText\.share: 1\.5; expected 0 ≤ share ≤ 1"):
        AltText("short", 1.5)


def test_pictures_without_a_caption_of_a_kind_are_counted(folder):
    (folder / "3.json").unlink()
    with pytest.warns(
        UserWarning, match=r"captions\.synthetic: 1 of 20 pictures have none, .*3\.p"
    ):
        data = made(folder, captions={"synthetic": 1.0, "caption": 0.0})
    assert "original 3" in data.request(range(20))["text"]
    (folder / "3.txt").unlink()
    with pytest.warns(UserWarning, match=r"left out: 1 of 20"):
        assert len(made(folder, captions={"synthetic": 1.0}).split("train")) == 19
