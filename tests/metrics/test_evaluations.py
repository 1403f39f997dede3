import pytest
import torch
from torch import nn

from diffusion.callbacks.generation import networks
from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Guidance
from diffusion.guidance.classifier_free import ClassifierFree
from diffusion.metrics.evaluations import Evaluations
from diffusion.parameterization import Eps
from diffusion.process import Cosine
from diffusion.sampler import Sampler
from diffusion.step import DDIM


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.null = {"label": 0}
        self.calls = 0

    def forward(self, x, t, label):
        self.calls += len(x)
        return x * 0.1


class Classified(Guidance):
    """Evaluates a classifier twice for each x̂_0."""

    def __init__(self):
        self.classifier = nn.Linear(4, 3)

    def guided(self, denoise, x_t, t, cond):
        self.classifier(x_t)
        self.classifier(input=x_t)
        return denoise(x_t, t, cond)


class Module:
    def __init__(self, guidance, steps=7):
        process = Cosine(T=20)
        self.denoiser = NetworkDenoiser(Net(), process, Eps())
        self.sampler = Sampler(DDIM(), steps, guidance)

    def draw(self, n):
        cond = Condition({"label": torch.ones(n, dtype=torch.long)}, {"label": 0})
        self.sampler(self.denoiser, self.denoiser.process, torch.randn(n, 4), cond)


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
    module, count = Module(guidance), Evaluations()
    (network,) = networks(module)["nfe"]
    with count.counting(network):
        module.draw(5)
    assert count.rows / 5 == nfe == network.calls / 5
    module.draw(5)
    assert count.rows == 5 * nfe


def test_a_guiding_classifier_is_counted_apart():
    module, counts = Module([Classified()]), {"nfe": Evaluations(), "classifier_nfe": Evaluations()}
    found = networks(module)
    assert set(found) == set(counts)
    with (
        counts["nfe"].counting(found["nfe"][0]),
        counts["classifier_nfe"].counting(found["classifier_nfe"][0]),
    ):
        module.draw(2)
    assert counts["nfe"].rows == 2 * 7
    assert counts["classifier_nfe"].rows == 2 * 2 * 7


def test_nothing_to_count():
    assert networks(object()) == {}
