"""A bag of words knows which words there are, and nothing else."""

import pytest
import torch

from diffusion.networks import BagOfWords


@pytest.fixture
def bag():
    torch.manual_seed(0)
    return BagOfWords(width=6, length=8, rows=500)


def test_the_order_of_words_does_not_matter(bag):
    one, other = bag(bag.read(["a red fox", "fox a red"])).pooled
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(one, bag(bag.read(["a red cat"])).pooled[0], atol=1e-2)


def test_it_is_the_mean_of_the_rows_of_words_and_end(bag):
    read = bag.read(["red fox", ""])
    found = bag(read)
    rows = bag.embedding.weight[read[""][0, :3]]
    assert read[""][0, 2:].tolist() == [0, *[-1] * 5]
    assert torch.allclose(found.states[0, :3], rows)
    assert found.mask.sum(1).tolist() == [3, 1]
    assert found.states[0, 3:].abs().max() == 0
    assert torch.allclose(found.pooled[0], rows.sum(0) / 3)
    assert torch.allclose(found.pooled[1], bag.embedding.weight[0])


def test_a_word_is_the_same_beside_any_other(bag):
    states = bag(bag.read(["a red fox", "a blue fox"])).states
    assert torch.equal(states[0, 2], states[1, 2])
