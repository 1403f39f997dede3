import json
import shutil
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from emoji_archives import GROUPS, HALF, codes_of, emojibase, npm, pack, scistag

from diffusion.common import packages
from diffusion.data import AltText, CaptionFile, Emoji
from diffusion.data.emoji import drawings
from diffusion.data.emoji.captions import captions
from diffusion.data.emoji.facts import said_facts
from diffusion.data.emoji.table import Entry

REAL = Path(__file__).parents[2] / "data"
CONCEPTS = [(f"1F{i:03X}", f"face {i}", 0, False) for i in range(80)]
CONCEPTS += [(f"2F{i:03X}", f"worker {i}", 1, True) for i in range(20)]
CONCEPTS += [("3F000", "banner", 3, False)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the table and two styles, one of which lacks half of the faces."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "packages").mkdir()
    codes = codes_of(CONCEPTS)
    body = {"body": HALF}
    svgs = {f"{code}-FE0F": body for code in codes}, {code.lower(): body for code in codes[40:]}
    table = {"en/data.json": emojibase(CONCEPTS), "meta/groups.json": GROUPS}
    packs = [pack(root / f"packages/{name}-1.0.tgz", of) for name, of in zip(("a", "b"), svgs)]
    packs = dict(zip(("google", "twitter"), packs))
    return root, {"PACKS": packs, "EMOJIBASE": npm(root / "packages/c-1.0.tgz", table)}


@pytest.fixture
def archives(tiny, tmp_path, monkeypatch):
    """The same folder with what has been drawn before, where nothing else can be fetched."""
    root, table = tiny
    for name, packages_ in table.items():
        monkeypatch.setattr(drawings, name, packages_)
    monkeypatch.setattr(packages, "_fetch", unreachable)
    made(root)
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def undrawn(archives):
    shutil.rmtree(archives / "emoji")
    return archives


def unreachable(package, folder, root):
    raise packages._not_found(package, root, "no network")


def made(root, **kwargs):
    data = Emoji(root=str(root), **{"size": 8, "styles": ["twitter", "google"], **kwargs})
    data.prepare_data()
    data.setup("fit")
    return data


def groups(data):
    """(concept, style) of every picture of every split, read from its captions."""
    found = {}
    for split in data.SPLITS:
        pictures = getattr(data, f"{split}_set")
        texts = pictures.conditions(range(len(pictures)))["text"] if len(pictures) else []
        found[split] = {
            (text.split(" of a ")[1].split(" with")[0], text.split()[1]) for text in texts
        }
        assert len(found[split]) == len(pictures)
    return found


def test_what_arrives(archives):
    data = made(archives, batch_size=3)
    assert data.classes[0] == "face"
    assert data.num_classes == len(data.classes) == 23
    assert data.shape == (3, 8, 8)
    batch = next(iter(data.train_dataloader()))
    assert {key: type(value) for key, value in batch.items()} == {
        "image": torch.Tensor,
        "label": torch.Tensor,
        "text": list,
    }
    red_and_white = torch.tensor([[255, 0, 0]] * 4 + [[255] * 3] * 4, dtype=torch.uint8)
    assert torch.equal(batch["image"], red_and_white.T[None, :, None].expand(3, 3, 8, 8))
    for text, label in zip(batch["text"], batch["label"].tolist()):
        assert data.classes[label] == ("face" if " face " in text else "person at work")
    seen = {
        text
        for split in ("train", "val", "test")
        for b in data.batches(split)
        for text in b["text"]
    }
    assert seen <= set(data.texts) == set(sorted(data.texts))
    assert not any("banner" in text for text in data.texts)
    assert len(data.texts) == 140 + 100


def test_a_concept_is_in_one_split_and_a_pair_lacks_one_style_alone(archives):
    of = groups(made(archives))
    concepts = {split: {concept for concept, _ in found} for split, found in of.items()}
    assert sum(map(len, of.values())) == 100 + 60
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert concepts[a]
        assert not concepts[a] & concepts[b]
    assert concepts["pairs"]
    assert concepts["pairs"] <= concepts["train"]
    assert not of["pairs"] & of["train"]


def test_splits_do_not_depend_on_the_other_styles(archives):
    both, google = groups(made(archives)), groups(made(archives, styles=["google"]))
    for split in ("val", "test"):
        assert {pair for pair in both[split] if pair[1] == "google"} == google[split]
    assert not google["pairs"]


def test_a_cache_is_read_without_packages_and_named_after_what_it_is_made_of(archives, monkeypatch):
    before = made(archives).fingerprint("train")
    files = sorted(path.name for path in (archives / "emoji").iterdir())
    assert [name.split("-")[:2] for name in files] == [["google", "8"], ["twitter", "8"]]
    for path in (archives / "packages").iterdir():
        path.unlink()
    assert made(archives).fingerprint("train") == before
    assert made(archives, captions="long").fingerprint("train") != before
    monkeypatch.setattr("diffusion.data.emoji.drawings.RECIPE", -1)
    with pytest.raises(FileNotFoundError, match="no network"):
        made(archives, styles=["twitter"])


def test_both_captions_take_turns_for_every_tone(archives):
    data = made(archives, captions="both", styles=["google"])
    pictures = data.train_set
    toned = next(k for k in range(len(pictures)) if len(pictures.groups[k]) == 3)
    texts = [pictures.visit([toned], [visit])["text"][0] for visit in range(6)]
    assert len(set(texts)) == 6
    assert sum(", showing tag" in text for text in texts) == 3
    assert texts == [pictures.visit([toned], [visit])["text"][0] for visit in range(6, 12)]


def test_samples_are_asked_for_by_prompts_or_by_captions(archives):
    asked = made(archives, prompts=["a red fox", "a blue dog"], complete=False)
    wanted = {"index": [2, 1], "text": ["a red fox", "a blue dog"]}
    request = asked.request([2, 1])
    assert {**request, "index": request["index"].tolist()} == wanted
    assert {"a red fox", "a blue dog"} < set(asked.texts)
    data = made(archives, ask="val")
    n = len(data.val_set)
    request = data.request(range(2 * n))
    known = data.val_set.conditions(range(n))
    assert sorted(request["text"][:n]) == sorted(known["text"])
    assert request["text"][:n] == request["text"][n:] != known["text"]
    label_of = dict(zip(known["text"], known["label"].tolist()))
    assert request["label"].tolist() == [label_of[text] for text in request["text"]]


def test_classes_are_asked_for_in_turn(archives):
    data = made(archives, labels=[7, 0], ask="train")
    request = data.request(range(6))
    assert data.classes[7] == "person at work"
    assert request["label"].tolist() == [7, 0] * 3
    assert ["worker" in text for text in request["text"]] == [True, False] * 3
    assert len(set(request["text"])) == 6
    with pytest.raises(ValueError, match=r"labels: 1; expected another class, .* train has no"):
        made(archives, labels=[1], ask="train").request([0])


def test_prompts_need_no_data(tmp_path):
    data = Emoji(root=str(tmp_path / "none"), prompts=["b", "a"], samples=3, complete=False)
    data.trainer = SimpleNamespace(predicting=True, global_rank=0, world_size=1)
    data.prepare_data()
    data.setup("predict")
    assert data.texts == ["a", "b"]
    assert [batch["text"] for batch in data.predict_dataloader()] == [["b", "a", "b"]]
    assert not (tmp_path / "none").exists()


def test_small_pictures_are_averages(archives):
    data = made(archives, low_size=4, batch_size=4)
    batch = next(data.batches("train"))
    means = batch["image"].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(batch["low_res"], means)
    request = data.on_after_batch_transfer(data.request([0, 1]), 0)
    torch.testing.assert_close(request["low_res"], means[:1].expand(2, -1, -1, -1))
    prompted = made(archives, low_size=4, prompts=["a"])
    with pytest.raises(ValueError, match=r"data\.low_root: null"):
        prompted.on_after_batch_transfer(prompted.request([0]), 0)


def test_google_alone_comes_from_pip_where_the_packs_cannot_be_had(undrawn, monkeypatch):
    names = {
        "1F600": {"name": "grinning face", "subgroup": "face-smiling"},
        "2764_FE0F": {"name": "red heart", "subgroup": "emotion"},
    }
    path = undrawn / "packages" / "scistag-1.0-py3-none-any.whl"
    monkeypatch.setattr(drawings, "SCISTAG", scistag(path, names, (0, 255, 0, 255)))
    (undrawn / "packages" / "b-1.0.tgz").unlink()
    with pytest.warns(UserWarning, match="only google, without twitter; .*no network") as warned:
        data = made(undrawn)
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert data.texts == ["a google emoji of a grinning face", "a google emoji of a red heart"]
    everything = data.train_set.pictures
    assert [data.classes[label] for label in everything.labels] == ["face", "heart"]
    assert torch.equal(everything.images[0, :, 3, 3], torch.tensor([0, 255, 0], dtype=torch.uint8))
    assert (everything.images == everything.images[0, :, 3, 3].view(3, 1, 1)).all()


def test_nothing_to_be_had_is_said_in_one_line(undrawn, monkeypatch):
    for path in (undrawn / "packages").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a 1\.0.*expected scistag") as error:
        made(undrawn)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"-8-\w+\.safetensors of Emoji there: get it"):
        made(undrawn, download=False)
    monkeypatch.setattr(drawings, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"resvg-py.* is not installed; pip install"):
        made(undrawn, styles=["twitter"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 12),
        ("size", 136),
        ("styles", []),
        ("styles", ["apple"]),
        ("captions", "none"),
        ("ask", "all"),
        ("prompts", []),
        ("low_size", 5),
    ],
)
def test_wrong_arguments_are_named(key, value):
    with pytest.raises(ValueError, match=f"{key}: .*expected"):
        Emoji(**{key: value})


def test_the_real_ones():
    data = Emoji(root=str(REAL), download=False)
    data.setup("fit")
    sizes = {split: len(getattr(data, f"{split}_set")) for split in data.SPLITS}
    assert sizes == {"train": 5519, "val": 308, "test": 354, "pairs": 337}
    memory = data.train_set.pictures
    assert len(memory) == 14_153
    everything = [s for split in data.SPLITS for s in getattr(data, f"{split}_set").groups]
    google = [group[0] for group in everything if " google " in memory.texts[group[0]][0]]
    counts = torch.bincount(memory.labels[google], minlength=23).tolist()
    of_23 = "119 12 25 15 61 44 30 82 33 58 43 37 131 29 131 69 72 31 47 85 47 219 224"
    assert counts == [int(n) for n in of_23.split()]


def test_a_share_of_the_training_pictures_is_part_of_a_larger_one(archives):
    every, most, few = (groups(made(archives, train_share=share)) for share in (1.0, 0.6, 0.2))
    assert few["train"] < most["train"] < every["train"]
    for split in ("val", "test", "pairs"):
        assert few[split] == every[split]
    assert 0.1 < len(few["train"]) / len(every["train"]) < 0.3


@pytest.mark.parametrize("share", [0.0, 1.1, -1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="expected more than 0, at most 1"):
        Emoji(train_share=share)


def test_the_true_captions_say_what_is_true(archives):
    data = made(archives, captions="both")
    assert len(data.names) == len({*data.names}) == len(data.pictures)
    assert data.names[0].startswith("google-1f")
    for _, text in data.pictures.texts or ():
        said, truth = data.said(text), data.truth[text]
        assert all(said[kind] == truth[kind] for kind in ("style", "skin", "class", "colour"))
        assert said["keyword"] <= truth["keyword"]


def test_what_a_text_says_is_told_apart_by_kind():
    known = frozenset({"fox", "red", "heart", "role"})
    text = "an openmoji emoji of a red heart with medium-dark and light skin. light blue and grey "
    said = said_facts(f"{text}person role picture, showing fox, unheard", known)
    assert said == {
        "style": {"openmoji"},
        "skin": {"medium-dark", "light"},
        "class": {"person at work"},
        "colour": {"red", "light blue", "gray"},
        "keyword": {"heart", "fox"},
    }
    assert not any(said_facts("", known).values())


def test_captions_of_several_kinds_stay_within_their_split(archives):
    captions = {"spoilt": 0.5, "written": 0.3, "long": 0.2}
    plain, path = made(archives), archives / "written.json"
    path.write_text(json.dumps({name: f"written {name}" for name in plain.names}))
    sources = {"spoilt": AltText("short", 1.0), "written": CaptionFile(str(path))}
    data = made(archives, captions=captions, sources=sources, prompt="short", batch_size=8)
    own = [text for (text,) in plain.pictures.texts]
    numbers = {split: [*chain(*pictures.groups)] for split, pictures in plain.sets().items()}
    short = {split: {own[i] for i in rows} for split, rows in numbers.items()}
    for split, rows in numbers.items():
        texts = [data.pictures.texts[i] for i in rows]
        assert all(len(of_one) == 3 for of_one in texts)
        assert {text for text, *_ in texts} & {*own} <= short[split]  # what was swapped in
        assert [text for _, text, _ in texts] == [f"written {plain.names[i]}" for i in rows]
        assert all(x.startswith(own[i] + ". ") for i, (*_, x) in zip(rows, texts))
    batch = next(iter(data.train_dataloader()))
    assert {*batch["prompt"]} <= short["train"]
    with pytest.raises(ValueError, match=r"data\.captions: shrt, no captions of this kind; .*long"):
        Emoji(captions={"shrt": 1.0})


def test_prompts_without_a_style_are_made_captions_and_it_is_said(archives):
    asked = ["a strawberry", "an openmoji emoji of a fox", ""]
    data = Emoji(root=str(archives), size=8, prompts=asked, download=False)
    with pytest.warns(UserWarning, match="'a strawberry' without a style.*asked for as 'a google"):
        data.setup("predict")
    whole = "a google emoji of a strawberry"
    assert data.prompts == [whole, *asked[1:]]
    assert data.texts == sorted(data.prompts)
    assert data.request([0, 1, 2, 3])["text"] == [*data.prompts, whole]
    strawberry = Entry("1F353", "1F353", "strawberry", "food-fruit")
    assert captions("short", "google", strawberry, []) == (whole,)


def test_prompts_stay_as_they_are_if_asked_to(archives):
    data = Emoji(root=str(archives), size=8, prompts=["a fox"], complete=False, download=False)
    with pytest.warns(UserWarning, match="'a fox' without a style.*'a google emoji of a fox'"):
        data.setup("predict")
    assert data.prompts == ["a fox"]
