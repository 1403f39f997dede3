import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffusion.callbacks.recipe import difference, plain_values, recipe
from diffusion.data import Digits
from diffusion.guidance import Classifier, Static
from diffusion.networks import MLP
from diffusion.objective import Simple
from diffusion.parameterization import Eps
from diffusion.process import Cosine, Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Frozen

ABOUT = {"name": "Digits", "shape": (1, 8, 8), "num_classes": 10, "classes": []}


class Net(MLP):
    def __init__(self, power=2):
        super().__init__(dim=2, width=4, depth=1)
        self.power = power


def made(net, guidance=(), steps=5, process=None):
    sampler = Sampler(DDIM(), steps, guidance)
    return Diffusion(net, process or Linear(T=10), Eps(), Simple(), sampler)


TRAINER = SimpleNamespace(callbacks=[], precision="32-true")


def of(module, data=None):
    return recipe(TRAINER, module, data or Digits())  # pyright: ignore[reportArgumentType]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_the_same_parts_are_the_same(net):
    here, there = of(made(net)), of(made(copy.deepcopy(net)))
    assert here == there
    assert difference(there, here) is None


def test_whatever_changes_a_picture_is_named(net):
    there = of(made(net))
    assert difference(there, of(made(net, steps=7))) == "model.sampler.steps 5, now 7"
    more = difference(there, of(made(net, [Static()])))
    assert more == 'model.sampler.guidance [], now ["Static"] (and 1 more)'
    assert 'model.process "Linear", now "Cosine"' in difference(
        there, of(made(net, process=Cosine(T=10)))
    )
    assert "model.process.alpha" in difference(there, of(made(net, process=Linear(T=12))))
    other = copy.deepcopy(net)
    other.power = 3
    assert difference(there, of(made(other))).startswith("model.network.power 2, now 3")
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    other.power = 2
    assert difference(there, of(made(other))).startswith("model.weights ")
    assert difference(there, of(made(net), Digits(labels=[1]))) == 'data.labels "0 … 9", now "1"'


def test_weights_of_guides_count(net):
    classifier = nn.Linear(2, 2)

    def guided():
        return of(made(net, [Classifier(1.0, Frozen(classifier, Linear(T=10), ABOUT))]))

    there = guided()
    assert difference(there, guided()) is None
    with torch.no_grad():
        classifier.weight.add_(1e-3)
    assert difference(there, guided()).startswith("model.sampler.guidance.0.classifier.weights ")


def test_what_json_lacks_is_described():
    found = plain_values(
        {"a": float("inf"), "b": torch.zeros(2, dtype=torch.bfloat16), "c": Linear}
    )
    assert found["a"] == "Infinity"
    assert len(found["b"]) == 16
    assert found["c"] == "diffusion.process.fixed.Linear"
