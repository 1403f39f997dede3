import pytest
import torch
from torch import nn

from diffusion.guidance import Classifier
from diffusion.guidance.classifier_free import ClassifierFree
from diffusion.metrics.evaluations import Evaluations
from diffusion.objective import Simple
from diffusion.parameterization import Eps
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.null = {"label": 0}
        self.calls = 0

    def forward(self, x, t, label):
        self.calls += len(x)
        return x * 0.1


class Classified(Classifier):
    """Evaluates a classifier twice for each x̂_0."""

    def __init__(self):
        self.classifier = self._follows = nn.Linear(4, 3)

    def guided(self, denoise, x_t, t, cond):
        self.classifier(x_t)
        self.classifier(input=x_t)
        return denoise(x_t, t, cond)


def model(*guidance):
    module = Diffusion(Net(), Cosine(T=20), Eps(), Simple(), Sampler(DDIM(), 7, guidance))
    module.spec = DataSpec(None, (4,), 3)
    return module


def draw(module, n):
    module.generate({"label": torch.ones(n, dtype=torch.long)}, range(n))


@pytest.mark.parametrize(
    ("guidance", "nfe"),
    [
        ([], 7),
        ([ClassifierFree(1.0)], 7),  # the conditional pass alone
        ([ClassifierFree(3.0)], 14),
        ([ClassifierFree(3.0, interval=(1, 10))], 7 + 3),  # t = 3, 6, 9 of 20, 17, … 3
    ],
)
def test_counts_are_the_networks_own(guidance, nfe):
    module, count = model(*guidance), Evaluations()
    (network,) = module.networks()["nfe"]
    with count.counting(network):
        draw(module, 5)
    assert count.rows / 5 == nfe == network.calls / 5
    draw(module, 5)
    assert count.rows == 5 * nfe


def test_a_guiding_classifier_is_counted_apart():
    module, counts = model(Classified()), {"nfe": Evaluations(), "classifier_nfe": Evaluations()}
    found = module.networks()
    assert set(found) == set(counts)
    with (
        counts["nfe"].counting(found["nfe"][0]),
        counts["classifier_nfe"].counting(found["classifier_nfe"][0]),
    ):
        draw(module, 2)
    assert counts["nfe"].rows == 2 * 7
    assert counts["classifier_nfe"].rows == 2 * 2 * 7
