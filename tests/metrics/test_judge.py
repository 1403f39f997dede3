import pytest
import torch

from diffusion.metrics import Judge
from diffusion.metrics.real_images import collect


def test_judges_digits(digits):
    judge = Judge()
    judge.fit(digits)
    assert judge.test_accuracy > 0.97
    images, labels = collect(digits, "test")
    assert judge.accuracy(images, labels) == judge.test_accuracy
    assert judge.accuracy(images, (labels + 1) % 10) < 0.03


def test_limit_is_a_seeded_choice(digits):
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        judge = Judge(limit=60, seed=seed)
        judge.fit(digits)
        found.append(judge.test_accuracy)
    assert found[0] == found[1] != found[2]


def test_errors():
    class Unlabelled:
        num_classes = None

        def batches(self, split, batch_size=500):
            yield {"image": torch.zeros(4, 1, 2, 2)}

    with pytest.raises(ValueError, match="Judge: data has no labels"):
        Judge().fit(Unlabelled())
    with pytest.raises(ValueError, match="limit: 1; expected at least 2"):
        Judge(limit=1)
