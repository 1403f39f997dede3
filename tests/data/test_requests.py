from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import SwissRoll
from diffusion.data.requests.controlled import Controlled
from diffusion.data.requests.edits import Edits
from diffusion.data.requests.given_controls import GivenControls
from diffusion.data.requests.labels import Labels, apportioned, is_even
from diffusion.data.requests.prompts import Captions, Prompts
from diffusion.data.requests.small_pictures import Shrunk, SmallPictures

DOCS = Path(__file__).parents[2] / "docs/data.md"


def read(data):
    return [(b["index"].tolist(), b["label"].tolist()) for b in data.predict_dataloader()]


def test_any_number_of_processes_makes_the_same_batches(numbered):
    one = read(numbered(samples=23, batch_size=4))
    assert list(chain.from_iterable(index for index, _ in one)) == list(range(23))
    for world in (2, 3, 8):
        ranks = [
            read(numbered(samples=23, batch_size=4, rank=r, world=world)) for r in range(world)
        ]
        assert all(batches == one[rank::world] for rank, batches in enumerate(ranks))


def test_labels_are_cycled_by_index(numbered):
    every = read(numbered(n=10, samples=23, batch_size=4))
    assert list(chain.from_iterable(label for _, label in every)) == [i % 10 for i in range(23)]
    some = read(numbered(n=10, samples=7, batch_size=4, labels=[3, 0, 9]))
    assert list(chain.from_iterable(label for _, label in some)) == [3, 0, 9, 3, 0, 9, 3]


@pytest.mark.parametrize("world", [1, 2])
def test_batches_that_are_done_are_skipped(numbered, world):
    left = []
    for rank in range(world):
        data = numbered(samples=12, batch_size=4, rank=rank, world=world)
        # The second batch is done, the third only in part.
        data.done = lambda: {4, 5, 6, 7, 8, 9}
        loader = data.predict_dataloader()
        batches = [batch["index"].tolist() for batch in loader]
        assert len(loader) == len(batches)
        left += batches
    assert left == [[0, 1, 2, 3], [8, 9, 10, 11]]


@pytest.mark.parametrize("labels", [[10], [-1], [0, 11], []])
def test_labels_that_are_no_classes_are_refused(numbered, labels):
    with pytest.raises(
        ValueError, match=r"^data.labels: .*; expected (null or )?classes 0 \.\. 9$"
    ):
        numbered(n=10, labels=labels).predict_dataloader()


def test_without_classes_there_are_no_labels(numbered):
    assert all(set(batch) == {"index"} for batch in SwissRoll().predict_dataloader())
    data = numbered(labels=[0])
    data.num_classes = None
    with pytest.raises(ValueError, match=r"labels: \[0\]; expected null"):
        data.predict_dataloader()


def test_a_digest_says_what_is_asked_for_in_words_if_they_are_few():
    assert Labels([3, 5]).digest() == "3, 5"
    assert Labels(list(range(1000))).digest() == "0 … 999"
    assert Prompts(["a red fox"]).digest() == "a red fox"
    several = {Prompts(texts).digest() for texts in (["a", "b"], ["b", "a"], ["a, b", "c"])}
    assert len(several) == 3
    assert all(text.startswith("2 texts ") for text in several)


def test_every_key_that_is_asked_for_is_documented():
    text = DOCS.read_text()
    keys = {key for ask in (Labels, Prompts, Captions, SmallPictures, Shrunk) for key in ask.keys}
    reserved = {"image_prompt", "identity", "pose"}
    for name in keys | reserved | {"index", "known", "mask"}:
        assert f"| `{name}` |" in text
    for ask in (Labels, Prompts, Captions, Edits, SmallPictures, Shrunk, Controlled, GivenControls):
        assert f"`{ask.argument}`" in text


@pytest.mark.parametrize(
    "counts", [(95, 95, *[8] * 8), (1, 1000), (3, 0, 2, 2), (1, 2, 3, 4, 5), (7,), (400, *[1] * 99)]
)
def test_every_class_has_its_share_of_the_first_samples_to_within_one(counts):
    total = sum(counts)
    had = np.zeros(len(counts))
    for i, label in enumerate(apportioned(counts, range(2 * total)), 1):
        had[label] += 1
        assert np.abs(had - i * np.array(counts) / total).max() < 1
    assert had.tolist() == [2 * count for count in counts]


def test_equal_counts_take_turns_and_a_number_says_its_class():
    assert apportioned([50] * 7, range(30)) == [i % 7 for i in range(30)]
    counts = [95, 95, *[8] * 8]
    every = apportioned(counts, range(1000))
    parts = [apportioned(counts, range(i, i + 100)) for i in range(0, 1000, 100)]
    assert list(chain(*parts)) == every == [apportioned(counts, [i])[0] for i in range(1000)]


def test_even_is_what_chance_has():
    """Against draws: of fair ones about half differ less than expected, of unfair ones none."""
    random = np.random.default_rng(0)
    fair = [is_even(random.multinomial(600, [0.2] * 5)) for _ in range(500)]
    assert 0.4 < np.mean(fair) < 0.75
    unfair = [is_even(random.multinomial(600, [0.3, 0.3, 0.2, 0.1, 0.1])) for _ in range(500)]
    assert not any(unfair)
    assert is_even([5])
    assert is_even([128, 131, 128, 132, 131, 131, 131, 129, 126, 130])  # Digits
    assert not is_even([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])  # MNIST
