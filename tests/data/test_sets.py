from collections import Counter

import pytest
import torch

from diffusion.data import Memory, Versions
from diffusion.data.reading.order import Shuffled

GROUPS = [[0], [1, 2, 3, 4, 5], [6, 7], [8]]


def numbered(n=9, texts=None):
    numbers = torch.arange(n)
    return Memory(numbers.to(torch.uint8).view(-1, 1, 1, 1), numbers, texts)


def shown(sequence, positions):
    return sequence.__getitems__(positions)["label"].tolist()


def test_groups_weigh_the_same_and_versions_within_them_too():
    endless = Shuffled(Versions(numbered(), GROUPS), seed=3, flip=False)
    counts = Counter(shown(endless, range(len(GROUPS) * 10)))
    assert counts == {0: 10, 8: 10, 6: 5, 7: 5} | dict.fromkeys(range(1, 6), 2)


def test_a_position_shows_the_same_however_it_is_reached():
    endless = Shuffled(Versions(numbered(), GROUPS), seed=3, flip=False)
    at_once = shown(endless, range(40))
    again = Shuffled(Versions(numbered(), GROUPS), seed=3, flip=False)
    assert [shown(again, [position])[0] for position in reversed(range(40))] == at_once[::-1]
    assert at_once != shown(Shuffled(Versions(numbered(), GROUPS), 4, False), range(40))


def test_captions_take_turns_each_time_a_picture_is_shown():
    texts = [(f"short {i}", f"long {i}") for i in range(9)]
    versions = Versions(numbered(texts=texts), GROUPS)
    read = Counter()
    for visit in range(20):
        batch = versions.visit(range(4), [visit] * 4)
        assert [text.split()[1] for text in batch["text"]] == [
            str(i) for i in batch["label"].tolist()
        ]
        read.update(batch["text"])
    assert all(
        read[f"short {i}"] == read[f"long {i}"] > 0 for i in range(9) if i not in range(1, 6)
    )
    assert {read[f"short {i}"] for i in range(1, 6)} == {2}
    assert {read[f"long {i}"] for i in range(1, 6)} == {2}


def test_what_is_known_is_what_the_first_visit_shows():
    versions = Versions(numbered(texts=[(f"a {i}", f"b {i}") for i in range(9)]), GROUPS)
    batch = versions.__getitems__([1, 3, 0])
    known = versions.conditions([1, 3, 0])
    assert set(known) == {"label", "text"}
    assert known["text"] == batch["text"]
    assert torch.equal(known["label"], batch["label"])


def test_a_digest_follows_groups_and_captions():
    sets = [
        numbered(),
        numbered(texts=["x"] * 9),
        numbered(texts=["x"] * 8 + ["y"]),
        Versions(numbered(), GROUPS),
        Versions(numbered(), GROUPS[1:]),
        Versions(numbered(texts=["x"] * 9), GROUPS),
    ]
    assert len({pictures.digest() for pictures in sets}) == len(sets)
    assert Versions(numbered(), GROUPS).digest() == sets[3].digest()


def test_a_caption_for_each_picture_is_expected():
    with pytest.raises(ValueError, match="texts: 2; expected 9, one per image"):
        numbered(texts=["a", "b"])
