from itertools import chain

import pytest

from diffusion.data import SwissRoll


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
    with pytest.raises(ValueError, match=r"^labels: .*, expected classes 0 \.\. 9$"):
        numbered(n=10, labels=labels).predict_dataloader()


def test_without_classes_there_are_no_labels(numbered):
    assert all(set(batch) == {"index"} for batch in SwissRoll().predict_dataloader())
    data = numbered(labels=[0])
    data.num_classes = None
    with pytest.raises(ValueError, match=r"labels: \[0\], expected null"):
        data.predict_dataloader()
