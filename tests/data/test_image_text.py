import json
import types

import pytest
import torch

from diffusion.data import ImageText
from diffusion.data.reading.decoding import read_picture
from diffusion.spec import DataSpec


@pytest.fixture
def pictures(tmp_path, photo):
    for i in range(12):
        folder = tmp_path / ("cats" if i % 2 else "dogs")
        folder.mkdir(exist_ok=True)
        photo(9, 9, seed=i).save(folder / f"{i}.png")
    for i in range(4):
        (tmp_path / ("cats" if i % 2 else "dogs") / f"{i}.txt").write_text(f" number\n  {i} é\n")
    for i, key in zip(range(4, 8), ["caption", "text", "caption", "other"]):
        path = tmp_path / ("cats" if i % 2 else "dogs") / f"{i}.json"
        path.write_text(json.dumps({key: f"number {i}", "width": 9}))
    (tmp_path / "dogs" / "8.txt").write_text(" \n")
    return tmp_path


def made(root, **kwargs):
    data = ImageText(root=str(root), **{"size": 8, "val_share": 0.0, "ask": "train", **kwargs})
    data.setup("fit")
    return data


def test_pictures_come_with_the_captions_beside_them(pictures):
    with pytest.warns(UserWarning, match=r"left out: 5 of 12 pictures .*cats/11\.png, cats/7\.png"):
        data = made(pictures)
    batch = next(data.batches("train"))
    of = {text: (image, label) for image, label, text in zip(*batch.values())}
    assert set(of) == {f"number {i} é" for i in range(4)} | {f"number {i}" for i in range(4, 7)}
    assert sorted(of) == data.texts
    image, label = of["number 3 é"]
    assert torch.equal(image, data.normalize(read_picture(pictures / "cats/3.png", 8, 3)))
    assert data.classes[label] == "cats"


@pytest.mark.filterwarnings("ignore:left out")
def test_samples_are_asked_for_by_captions_or_prompts(pictures):
    data = made(pictures, prompts=None)
    request = data.request(range(7))
    assert sorted(request["text"]) == data.texts
    assert ["135".count(text.split()[1]) for text in request["text"]] == (
        (1 - request["label"]).tolist()
    )
    assert made(pictures, labels=[1]).request([0, 1, 2])["label"].tolist() == [1, 1, 1]
    asked = ImageText(root="nowhere", size=8, prompts=["a", "b"])
    asked.setup("predict")
    assert set(asked.request([0, 3])) == {"index", "text"}
    assert asked.request([0, 3])["text"] == ["a", "b"]
    with pytest.raises(ValueError, match=r"data\.ask: val; expected another split"):
        made(pictures, ask="val").request([0])


@pytest.mark.filterwarnings("ignore:left out")
def test_a_fingerprint_follows_the_captions(pictures):
    before = made(pictures).fingerprint("train")
    assert made(pictures).fingerprint("train") == before
    (pictures / "dogs" / "0.txt").write_text("another")
    assert made(pictures).fingerprint("train") != before


@pytest.mark.filterwarnings("ignore:left out")
def test_small_pictures_are_added(pictures):
    batch = next(made(pictures, low_size=4).batches("train"))
    means = batch["image"].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(batch["low_res"], means)


def test_captions_that_cannot_be_read_are_named(pictures):
    (pictures / "dogs" / "4.json").write_text("{")
    with pytest.raises(ValueError, match=r"dogs/4\.png has an unreadable caption"):
        made(pictures)
    (pictures / "dogs" / "4.json").write_text('{"caption": 5}')
    with pytest.raises(ValueError, match=r"expected UTF-8 text, or JSON with texts under"):
        made(pictures)


def test_a_folder_without_captions_is_refused(tmp_path, photo):
    photo(9, 9).save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"captions of its 1 .* a\.txt or \.json beside"):
        made(tmp_path)


@pytest.mark.filterwarnings("ignore:left out")
def test_nothing_held_out_is_asked_for_by_training_captions(pictures):
    data = ImageText(root=str(pictures), size=8, val_share=0.0)
    data.setup("fit")
    assert data.ask == "train"
    assert sorted(data.request(range(7))["text"]) == data.texts
    assert ImageText(root=str(pictures), size=8).ask == "val"


def test_predict_without_prompts_says_what_would_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"prompts: null; .*--prompt .* expected a folder"):
        ImageText(root=str(tmp_path / "gone"), size=8).setup("predict")


def test_where_only_labels_are_read_samples_need_no_pictures(tmp_path):
    data = ImageText(root=str(tmp_path / "gone"), size=8)
    data.trainer = types.SimpleNamespace(lightning_module=types.SimpleNamespace(reads_texts=False))
    data.setup("predict")
    data.restore(DataSpec("ImageText", (3, 8, 8), 2, ("cats", "dogs")))
    assert data.request([0, 1, 2])["label"].tolist() == [0, 1, 0]
    data.labels = ["dogs"]
    assert data.request([0, 1, 2])["label"].tolist() == [1, 1, 1]


def test_a_file_that_is_too_large_for_a_caption_is_named(pictures):
    (pictures / "dogs" / "4.json").write_text("[" * 2_000_000)
    with pytest.raises(ValueError, match=r"dogs/4\.png .* \(2,000,000 bytes, more than"):
        made(pictures)
    (pictures / "dogs" / "4.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"dogs/4\.png has an unreadable caption"):
        made(pictures)


def test_captions_and_prompts_have_one_form(pictures):
    (pictures / "cats/1.txt").write_bytes(b"\xef\xbb\xbfcafe\xcc\x81")
    (pictures / "cats/5.json").write_bytes(b'\xef\xbb\xbf{"caption": "cafe\xcc\x81"}')
    with pytest.warns(UserWarning, match="left out"):
        data = made(pictures, prompts=["\ufeffcafe\u0301  noir"])
    assert "café" in data.texts
    assert not [text for text in data.texts if "\ufeff" in text or "\u0301" in text]
    assert data.request([0])["text"] == ["café noir"]
