import logging
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from diffusion.data import Digits
from diffusion.data.sets import Memory
from diffusion.guidance import ClassifierFree, Static
from diffusion.networks import adapt
from diffusion.systems.checkpoints.restorable import settings_of
from diffusion.systems.checks import check_forgotten
from diffusion.systems.trainer import check_precision, check_stage


def network(**null):
    net = nn.Linear(1, 1)
    net.null = null  # pyright: ignore
    return adapt(net)


def sampler(*guidance):
    return SimpleNamespace(guidance=guidance)


def test_what_was_never_forgotten_is_not_drawn_without():
    labelled = network(label=10)
    never = {"p_uncond": 0.0, "start": None}
    with pytest.raises(ValueError, match=r"model.p_uncond: 0.0; .* draws with ∅ for label"):
        check_forgotten(sampler(Static(), ClassifierFree(0.0)), never, labelled)
    check_forgotten(sampler(Static(), ClassifierFree(1.0)), never, labelled)
    for known in ({"p_uncond": 0.1}, {"p_uncond": 0.0, "start": "base.ckpt"}, {}):
        check_forgotten(sampler(ClassifierFree(3.0)), known, labelled)
    with pytest.raises(ValueError, match="this one has nothing to forget"):
        check_forgotten(sampler(ClassifierFree(3.0)), {"p_uncond": 0.1}, network())


def test_of_an_imported_model_nothing_is_known():
    settings = {"p_uncond": 0.0}
    assert settings_of({"global_step": 0, "hyper_parameters": settings}) == {}
    assert settings_of({"global_step": 5, "hyper_parameters": settings}) == settings
    assert settings_of({"global_step": 5, "hyper_parameters": [settings]}) == {}


@pytest.mark.parametrize("precision", ["64-true", 64, "16-true", "bf16-true", "transformer-engine"])
def test_precisions_of_the_weights_are_refused(precision):
    with pytest.raises(ValueError, match=f"trainer.precision: {precision}; expected 32-true"):
        check_precision(precision)


@pytest.mark.parametrize("precision", [None, 32, "32-true", "bf16-mixed", 16, "16-mixed", "bf16"])
def test_others_are_accepted(precision):
    check_precision(precision)


def test_nothing_to_validate_is_said(caplog):
    data = Digits()
    data.val_set, data.test_set = Memory(torch.empty(0)), Memory(torch.empty(1))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.datamodule = data  # pyright: ignore
    why = r"the split 'val' of Digits is empty \(data.val_share\)"
    with pytest.raises(ValueError, match=f"validate: nothing to validate, {why}; expected"):
        check_stage(trainer, "validate")
    check_stage(trainer, "test")
    with caplog.at_level(logging.INFO):
        check_stage(trainer, "fit")
    assert "Nothing will be validated: the split 'val'" in caplog.text
