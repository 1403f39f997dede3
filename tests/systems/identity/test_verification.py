import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score, roc_curve

from diffusion.systems.identity import verification
from diffusion.systems.identity.angular_margin import AngularMargin


def some(n=60, persons=12, noise=1.0):
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(n) % persons
    centres = torch.randn(persons, 8, generator=generator)
    return centres[person] + noise * torch.randn(n, 8, generator=generator), person


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_auc_and_eer_are_those_of_scikit_learn(noise):
    embeddings, person = some(noise=noise)
    same, different = verification.pairs(embeddings, person)
    assert (len(same), len(different)) == (12 * 10, 60 * 59 // 2 - 120)
    truth = np.r_[np.ones(len(same)), np.zeros(len(different))]
    score = torch.cat([same, different]).numpy()
    assert verification.auc(same, different) == pytest.approx(roc_auc_score(truth, score))
    accepted, kept, _ = roc_curve(truth, score, drop_intermediate=False)
    way = np.linspace(0, 1, 200_001)
    rate = np.interp(way, accepted, kept)  # straight between points, too
    expected = way[np.argmin(np.abs(1 - rate - way))]
    assert verification.eer(same, different) == pytest.approx(expected, abs=1e-3)


def test_ties_count_by_halves():
    same, different = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0])
    assert verification.auc(same, different) == pytest.approx(
        roc_auc_score([1, 1, 1, 0, 0], [0, 1, 1, 0, 1])
    )
    apart = torch.tensor([2.0]), torch.tensor([1.0])
    assert (verification.auc(*apart), verification.eer(*apart)) == (1.0, 0.0)
    assert verification.auc(torch.ones(3), torch.ones(4)) == 0.5
    assert math.isnan(verification.auc(torch.ones(3), torch.ones(0)))


def test_rank_1_is_that_of_a_loop():
    embeddings, person = some(noise=2.0)
    unit = F.normalize(embeddings, dim=1).numpy()
    known = {int(p): i for i, p in reversed(list(enumerate(person)))}
    right = [
        max(known, key=lambda p: unit[i] @ unit[known[p]]) == int(person[i])
        for i in range(len(unit))
        if i not in known.values()
    ]
    assert verification.rank_1(embeddings, person) == pytest.approx(np.mean(right))
    assert verification.rank_1(torch.ones(4, 2), torch.tensor([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("degrees", [10, 60, 140, 175])
def test_the_margin_is_added_to_the_angle(degrees):
    """Against the closed form: one embedding and two centres in a plane."""
    s, m, theta = 8.0, 0.5, math.radians(degrees)
    loss = AngularMargin(2, 2, s, m)
    loss.centres.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # of any length
    embedding = 7 * torch.tensor([[math.cos(theta), math.sin(theta)]])
    to_other = math.cos(theta - math.pi / 2)
    right = math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)
    expected = math.log(math.exp(s * right) + math.exp(s * to_other)) - s * right
    (found,), (hit,) = loss(embedding, torch.tensor([0]))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert bool(hit) == (degrees < 45)


def test_without_a_margin_it_is_the_softmax_of_cosines():
    embeddings, person = some()
    loss = AngularMargin(12, 8, 5.0, 0.0)
    cos = F.normalize(embeddings, dim=1) @ F.normalize(loss.centres, dim=1).T
    expected = F.cross_entropy(5 * cos, person, reduction="none")
    assert torch.allclose(loss(embeddings, person)[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"model\.margin: 2\.0 with model\.scale"):
        AngularMargin(12, 8, 5.0, 2.0)


def test_where_an_embedding_meets_its_centre_there_is_a_slope():
    loss = AngularMargin(2, 2)
    loss.centres.data = torch.eye(2)
    embedding = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss(embedding, torch.tensor([0]))[0].sum().backward()
    assert embedding.grad.isfinite().all()
