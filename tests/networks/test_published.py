"""Our networks equal those of improved-diffusion and guided-diffusion with the same weights.

published.npz holds the outputs of OpenAI's own code (improved-diffusion at 1bc7bbb,
guided-diffusion at 22e0df8; float32, CPU), each network filled by `fill` and called with `inputs`.
All of them had model_channels=128, num_res_blocks=1, attention_resolutions=(1, 2),
use_scale_shift_norm=True and, but for iddpm, image_size=8, channel_mult=(0.5, 1),
num_head_channels=32 and resblock_updown=True:

    adm_64           UNetModel, out_channels=6, num_classes=10, use_new_attention_order=True
    adm_256          UNetModel, out_channels=6, num_classes=10
    iddpm            improved_diffusion's UNetModel, out_channels=6, channel_mult=(1, 1),
                     num_heads=4, called with a quarter of the times
    classifier       EncoderUNetModel, out_channels=10, pool="attention"
    classifier_mean  EncoderUNetModel, out_channels=10, pool="adaptive"
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from published import fill, inputs

from diffusion.networks import ClassifierNetwork, UNet

SMALL = {"image_size": 8, "channels": 128, "multipliers": (0.5, 1), "attention": (8, 4)}
SMALL |= {"blocks": 1}
OPENAI = {"family": "openai", "scale_shift": True, "out_channels": 6}
ADM = {**SMALL, **OPENAI, "resample": "block", "num_classes": 10, "null_class": False}
NETWORKS = {
    "adm_64": (UNet, {**ADM, "head_width": 32}),
    "adm_256": (UNet, {**ADM, "head_width": 32, "qkv_order": "heads-qkv"}),
    "iddpm": (
        UNet,
        {**SMALL, **OPENAI, "multipliers": (1, 1), "heads": 4, "qkv_order": "heads-qkv"}
        | {"time_scale": 0.25},
    ),
    "classifier": (ClassifierNetwork, {**SMALL, "num_classes": 10, "head_width": 32}),
    "classifier_mean": (
        ClassifierNetwork,
        {**SMALL, "num_classes": 10, "head_width": 32, "pool": "mean"},
    ),
}
CONFIGS = Path(__file__).parents[2] / "configs"


def expected(name):
    with np.load(Path(__file__).with_name("published.npz")) as outputs:
        return torch.from_numpy(outputs[name])


@torch.no_grad()
def output(name, **changes):
    kind, settings = NETWORKS[name]
    network = fill(kind(**{**settings, **changes}))
    x_t, t, label = inputs()
    condition = {"label": label} if "label" in network.conditions else {}
    return network(x_t, t + 1, **condition)


@pytest.mark.parametrize("name", NETWORKS)
def test_output_equals_the_published_code(name):
    torch.testing.assert_close(output(name), expected(name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("adm_64", {"qkv_order": "heads-qkv"}),
        ("adm_256", {"qkv_order": "qkv-heads"}),
        ("adm_64", {"head_width": 64}),
        ("adm_64", {"family": "ddpm"}),
        ("iddpm", {"family": "ddpm"}),
        ("iddpm", {"time_scale": 1.0}),
        ("classifier", {"qkv_order": "qkv-heads"}),
    ],
)
def test_a_wrong_option_loads_the_weights_and_differs(name, changes):
    assert (output(name, **changes) - expected(name)).abs().max() > 0.01


# Parameters of the networks that the published code builds from its README's flags. ADM's paper
# rounds them to 296M, 422M, 554M and 559M; Improved DDPM's README calls its own 50M in a file name.
@pytest.mark.parametrize(
    ("config", "count"),
    [
        ("adm_imagenet64", 295_904_454),
        ("adm_imagenet128", 421_529_606),
        ("adm_imagenet256", 553_838_086),
        ("adm_imagenet512", 558_997_638),
        ("iddpm_cifar10", 52_546_438),
    ],
)
def test_a_configuration_has_the_published_size(config, count):
    node = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["model"]["network"]
    with torch.device("meta"):
        network = UNet(**node["init_args"])
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"image_size": 64, "multipliers": (1, 2, 3, 4), "blocks": 4}, 65_438_568),
        ({}, 42_568_040),
        ({"image_size": 256, "multipliers": (1, 1, 2, 2, 4, 4)}, 54_096_360),
        ({"image_size": 512, "multipliers": (0.5, 1, 1, 2, 2, 4, 4)}, 54_448_360),
    ],
)
def test_classifiers_have_the_published_size(settings, count):
    with torch.device("meta"):
        network = ClassifierNetwork(**settings)
    assert sum(p.numel() for p in network.parameters()) == count
