"""Whether samples show whom they were asked to be: by hand, and what real pictures get."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from captioned import SmallIdentity
from torch import nn

from diffusion.common.pixels import quantize
from diffusion.metrics import IdentityScore, MadeBy, SampleBatch
from diffusion.metrics.identity_score import compared
from diffusion.systems.frozen import FrozenIdentity


class Persons:
    """Two pictures of each of three persons, of which the pairs are known."""

    shape, num_classes, ask, asked_split, controls = (3, 8, 8), None, "test", "test", {}

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        base = torch.rand(3, 3, 8, 8, generator=random) * 2 - 1
        self.image = base.repeat_interleave(2, 0)
        self.identity = self.image * 0.9
        self.person = torch.arange(3).repeat_interleave(2)

    def batches(self, split, batch_size=500):
        assert split == "test"
        yield {"image": self.image, "identity": self.identity, "person": self.person}

    def shown(self):
        """Yields other pictures than those judged."""
        yield self.image.flip(3)
        yield self.image.flip(2)[:3]


def test_cosine_and_rank_are_by_hand():
    drawn = F.normalize(torch.tensor([[1.0, 0.1], [0.2, 1.0], [1.0, 0.9]]), dim=1)
    given = torch.eye(2)[[0, 1, 1]]
    found, floor = compared(drawn, given, torch.tensor([7, 8, 8]))
    own = [drawn[0, 0], drawn[1, 1], drawn[2, 1]]
    assert found["cosine"] == pytest.approx(float(sum(own)) / 3)
    assert found["rank1"] == pytest.approx(2 / 3)  # the third is nearer to the first person
    others = [drawn[0, 1], drawn[0, 1], drawn[1, 0], drawn[2, 0]]
    assert floor == pytest.approx(float(sum(others)) / 4)


def test_figures_have_floor_and_ceiling_and_do_not_depend_on_batches():
    judge, data = SmallIdentity(), Persons()
    samples = quantize(data.image.flip(0))  # of other persons but the middle one
    results = []
    for parts in ([range(6)], [[5, 1], [0, 2, 3, 4]]):
        measure = IdentityScore(judge)
        measure.prepare(data, Path(".cache"))
        for rows in map(list, parts):
            given = {"identities": data.identity[rows], "persons": data.person[rows]}
            measure.update(SampleBatch(samples[rows], torch.tensor(rows), **given))
        results.append({k: x.value for k, x in measure.figures().items()})
    assert results[0] == pytest.approx(results[1])
    figures = results[0]
    assert set(figures) == {
        *("identity_cosine@6", "identity_cosine_floor@6", "identity_cosine_ceiling@6"),
        *("identity_rank1@6", "identity_rank1_ceiling@6"),
    }
    cos = F.cosine_similarity(judge.encode(data.image), judge.encode(data.identity))
    assert figures["identity_cosine_ceiling@6"] == pytest.approx(cos.mean().item(), abs=1e-5)
    assert figures["identity_cosine@6"] < figures["identity_cosine_ceiling@6"]


def test_a_judge_that_conditions_or_reads_other_pictures_is_refused():
    judge = SmallIdentity()
    measure = IdentityScore(judge)
    measure.check(Persons(), MadeBy(["something"]))
    with pytest.raises(
        ValueError, match=r"judge: it conditions what it would judge; expected anoth"
    ):
        measure.check(Persons(), MadeBy(["something", judge.fingerprint]))
    with pytest.raises(
        ValueError, match=r"judge: reads pictures \(3, 16, 16\); expected \(3, 8, 8"
    ):
        IdentityScore(SmallIdentity(16)).check(Persons(), MadeBy())


def test_samples_of_nobody_have_no_figures():
    measure = IdentityScore(SmallIdentity())
    measure.prepare(Persons(), Path(".cache"))
    measure.update(SampleBatch(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)))
    assert measure.figures() == {}


class Centred(FrozenIdentity):
    """Judges by the first rows of pictures, and by what they have beyond the mean of training."""

    def __init__(self):
        super().__init__(nn.Identity(), 24, ())
        self.mean = torch.zeros(24)

    def raw(self, images):
        return images[:, :, 0].flatten(1) - self.mean

    def prepare(self, pictures):
        self.mean = torch.cat([x[:, :, 0].flatten(1) for x in pictures]).mean(0)


def test_a_judge_of_any_size_sees_what_training_shows_and_nothing_else():
    measure, data = IdentityScore(Centred()), Persons()
    measure.check(data, MadeBy())
    measure.prepare(data, Path(".cache"))
    rows = torch.cat([data.image.flip(3), data.image.flip(2)[:3]])[:, :, 0].flatten(1)
    measure.update(SampleBatch(quantize(data.image), torch.arange(6), identities=data.identity))
    a, b = (x[:, :, 0].flatten(1) - rows.mean(0) for x in (data.image, data.identity))
    wanted = F.cosine_similarity(a, b).mean().item()
    found = measure.figures()
    assert found["identity_cosine_ceiling@6"].value == pytest.approx(wanted, abs=1e-5)
    assert found["identity_cosine@6"].value == pytest.approx(wanted, abs=2e-3)  # quantized
