"""Models whose weights OpenAI published, each as the model section of a configuration has it.

The settings are the flags of the README files of openai/improved-diffusion and
openai/guided-diffusion, with the defaults of their scripts where a flag is missing there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffusion.networks import ClassifierNetwork, UNet, Upsampler
from diffusion.networks.unet.encoder import Encoder

Settings = dict[str, Any]
NETWORKS = {kind.__name__: kind for kind in (ClassifierNetwork, UNet, Upsampler)}


@dataclass(frozen=True)
class Model:
    """A model: the class of its module and the arguments of that, as in a configuration.

    Attributes:
        settings: network, process and so on.
        kind: "Diffusion", or "NoisyClassifier" for a classifier of noisy images.
    """

    settings: Settings
    kind: str = "Diffusion"

    def network(self, device: str = "cpu") -> Encoder:
        """Returns the network, with initial weights; without any on the device "meta"."""
        said = self.settings["network"]
        with torch.device(device):
            return NETWORKS[said["class_path"]](**said["init_args"])


def node(name: str, **arguments: Any) -> Settings:
    """Returns a class and its arguments as YAML has them."""
    return {"class_path": name, "init_args": arguments}


COSINE = node("Cosine", T=1000)
LINEAR = node("Linear", T=1000, beta_1=1e-4, beta_T=0.02)
# For T steps the published code scales both ends by 1000 / T.
LINEAR_4000 = node("Linear", T=4000, beta_1=2.5e-5, beta_T=0.005)
COSINE_4000 = node("Cosine", T=4000)
AT_32, AT_64 = (1, 2, 2, 2), (1, 2, 3, 4)
AT_128, AT_256 = (1, 1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
AT_512 = (0.5, 1, 1, 2, 2, 4, 4)

LABELS: Settings = {"num_classes": 1000, "null_class": False}
NOT_RESCALED: Settings = {"lr": 3e-4, "weight": 1 / 4000, **LABELS}
IDDPM: Settings = {
    "channels": 128, "attention": [16, 8], "blocks": 3, "heads": 4, "qkv_order": "heads-qkv",
    "process": COSINE_4000, "steps": None,
}  # fmt: skip
ADM: Settings = {
    "channels": 256, "attention": [32, 16, 8], "blocks": 2, "head_width": 64,
    "qkv_order": "heads-qkv", "resample": "block", "process": LINEAR, "steps": 250,
}  # fmt: skip
ADM_4_HEADS: Settings = {**ADM, **LABELS, "head_width": None, "heads": 4}


def unet(
    size: int, multipliers: Sequence[float], common: Settings, kind: str = "UNet", **more: Any
) -> Model:
    """Returns a model that predicts ε and a learned variance, sampled by DDPM's step.

    The weight is λ of L_hybrid: T / 1000 · L_{t−1} with rescale_learned_sigmas, so 0.001, and
    L_{t−1} without, so 1 / T.

    Args:
        size: Height and width of its images.
        multipliers: Of the channels of each level.
        common: Arguments of the network; process and steps; lr and weight.
        kind: The network's class.
        **more: What differs from `common`.
    """
    said = {"weight": 0.001, "lr": 1e-4, **common, **more}
    process, steps, lr, weight = (said.pop(key) for key in ("process", "steps", "lr", "weight"))
    said |= {"in_channels": 3, "out_channels": 6, "family": "openai"}
    network = {"image_size": size, "multipliers": list(multipliers), "scale_shift": True, **said}
    spacing = {} if steps is None else {"steps": steps, "spacing": "linspace"}
    return Model(
        {
            "network": node(kind, **network),
            "process": process,
            "parameterization": "Eps",
            "objective": node("Hybrid", weight=weight, levels=256),
            "sampler": {
                "step": node("DDPM", variance="learned"),
                **spacing,
                "guidance": ["Static"],
            },
            "optimizer": node("torch.optim.AdamW", lr=lr, weight_decay=0.0),
        }
    )


def classifier(
    size: int, multipliers: Sequence[float], process: Settings, blocks: int = 2
) -> Model:
    """Returns a classifier of noisy ImageNet images of ADM."""
    arguments = {"image_size": size, "multipliers": list(multipliers), "blocks": blocks}
    optimizer = node("torch.optim.AdamW", lr=3e-4, weight_decay=0.05)
    settings = {"network": node("ClassifierNetwork", **arguments), "process": process}
    return Model({**settings, "optimizer": optimizer}, kind="NoisyClassifier")


PRESETS: dict[str, Model] = {
    "iddpm_cifar10": unet(32, AT_32, IDDPM, dropout=0.3, time_scale=0.25),
    "iddpm_imagenet64": unet(64, AT_64, IDDPM, time_scale=0.25),
    "iddpm_imagenet64_cond": unet(64, AT_64, IDDPM | NOT_RESCALED, channels=192),
    "iddpm_lsun_bedroom": unet(
        256, AT_256, IDDPM, process=LINEAR, blocks=2, heads=1, attention=[16], scale_shift=False
    ),
    "iddpm_upsampler_64_256": unet(
        256, AT_256, IDDPM | NOT_RESCALED, "Upsampler", process=LINEAR_4000, channels=192, blocks=2
    ),
    "adm_imagenet64": unet(
        64, AT_64, ADM | LABELS, channels=192, process=COSINE, blocks=3, dropout=0.1, lr=3e-4,
        qkv_order="qkv-heads",
    ),
    "adm_imagenet128": unet(128, AT_128, ADM_4_HEADS),
    "adm_imagenet256": unet(256, AT_256, ADM | LABELS),
    "adm_imagenet256_uncond": unet(256, AT_256, ADM),
    "adm_imagenet512": unet(512, AT_512, ADM | LABELS),
    "adm_lsun": unet(256, AT_256, ADM, dropout=0.1, steps=None),
    "adm_upsampler_64_256": unet(256, AT_256, ADM_4_HEADS, "Upsampler", channels=192),
    "adm_upsampler_128_512": unet(
        512, AT_256, ADM | LABELS, "Upsampler", channels=192, attention=[32, 16]
    ),
    "classifier_imagenet64": classifier(64, AT_64, COSINE, blocks=4),
    "classifier_imagenet128": classifier(128, AT_128, LINEAR),
    "classifier_imagenet256": classifier(256, AT_256, LINEAR),
    "classifier_imagenet512": classifier(512, AT_512, LINEAR),
}  # fmt: skip
