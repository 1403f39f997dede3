"""The encoder of word vectors, on an archive of ours, against the published weights' formula."""

import io
import json
import tarfile
import warnings

import numpy as np
import pytest
import torch

from diffusion.networks import WordVectors
from diffusion.networks.text import word_vectors
from diffusion.networks.text.word_vectors import MEMBER, most_frequent

WORDS = ["the", 'a"b', "of", "red", "vectors", "fox", "écru", "rare"]


def numbers(word):
    random = np.random.default_rng(WORDS.index(word))
    return random.standard_normal(100).astype(np.float16).astype(float)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with an archive in the published one's format; one byte is read at a time."""
    every = {w: [*numbers(w).tolist(), 1.0, i] for i, w in enumerate(WORDS)}
    content = {"precision": 8, "size": len(WORDS), "words": WORDS, "vectors": every}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    path = tmp_path / f"{word_vectors.PACKAGE.stem}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(MEMBER)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    monkeypatch.setattr(word_vectors, "obtain", lambda package, folder: path)
    monkeypatch.setattr(word_vectors, "CHUNK", 50)
    return tmp_path


def test_the_mean_is_weighted_by_rarity(root):
    """Zipf's law and SIF's weight written down again, in numpy."""
    encoder = WordVectors(5, 8, str(root))
    values = encoder.read(["the Red-fox", "fox fox"])
    unit = {w: numbers(w) / np.linalg.norm(numbers(w)) for w in WORDS}
    p = {w: 1 / r / sum(1 / k for k in range(1, 9)) for r, w in enumerate(WORDS, 1)}
    w = {word: 0.001 / (0.001 + p[word]) for word in WORDS}
    words = ["the", "red", "fox"]
    mean = sum(w[x] * unit[x] for x in words) / sum(w[x] for x in words)
    close = {"rtol": 2e-3, "atol": 2e-4}
    torch.testing.assert_close(values["_pooled"][0].numpy(), mean.astype(np.float32), **close)
    for i, word in enumerate(words):
        state = values[""][0, i].numpy()
        torch.testing.assert_close(state, unit[word].astype(np.float32), **close)
    torch.testing.assert_close(values["_pooled"][1].numpy(), unit["fox"].astype("f"), **close)
    assert values["_mask"].sum(1).tolist() == [3, 2]
    assert encoder.sizes(["the red fox", "the red fox of the écru"]) == [3, 6]


def test_words_are_read_to_the_last_asked_for(root):
    words, vectors = most_frequent(5, root)
    assert words == WORDS[:5]
    expected = torch.tensor(np.stack([numbers(w) for w in words])).half()
    assert torch.equal(vectors, expected)
    assert most_frequent(99, root)[0] == WORDS


def test_the_archive_is_read_once(root, monkeypatch):
    most_frequent(8, root)
    monkeypatch.setattr(word_vectors, "entries", lambda *_: pytest.fail("read again"))
    assert most_frequent(8, root)[0] == WORDS


def test_unknown_words_are_counted_in_one_line(root):
    with pytest.warns(UserWarning, match="unknown") as caught:
        values = WordVectors(5, 8, str(root)).read(["a red blorp", "blorp zzz", ""])
    (message,) = [str(one.message) for one in caught]
    assert "8; 3 of 4 words are unknown and left out, such as 'a'" in message
    assert message.endswith("1 texts have no other, such as 'blorp zzz'")
    assert values["_pooled"][1:].count_nonzero() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WordVectors(5, 8, str(root)).read(["the fox", ""])


@pytest.mark.parametrize("words", [0, 400_000])
def test_numbers_out_of_range(words):
    with pytest.raises(ValueError, match=rf"WordVectors.words: {words}; expected"):
        WordVectors(words=words)
