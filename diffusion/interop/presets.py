"""Models whose weights OpenAI published, each as the model section of a configuration has it.

The settings are the flags of the README files of openai/improved-diffusion and
openai/guided-diffusion, with the defaults of their scripts where a flag is missing there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    def network(self) -> Encoder:
        """Returns the network, with initial weights."""
        node = self.settings["network"]
        return NETWORKS[node["class_path"]](**node["init_args"])


def of(name: str, **arguments: Any) -> Settings:
    """Returns a class and its arguments as YAML has them."""
    return {"class_path": name, "init_args": arguments}


COSINE = of("Cosine", T=1000)
LINEAR = of("Linear", T=1000, beta_1=1e-4, beta_T=0.02)
# For T steps the published code scales both ends by 1000 / T.
LINEAR_4000 = of("Linear", T=4000, beta_1=2.5e-5, beta_T=0.005)
COSINE_4000 = of("Cosine", T=4000)
AT_32, AT_64 = (1, 2, 2, 2), (1, 2, 3, 4)
AT_128, AT_256 = (1, 1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
AT_512 = (0.5, 1, 1, 2, 2, 4, 4)


def unet(
    size: int,
    channels: int,
    multipliers: Sequence[float],
    process: Settings,
    kind: str = "UNet",
    steps: int | None = 250,
    lr: float = 1e-4,
    weight: float = 0.001,
    **network: Any,
) -> Model:
    """Returns a model that predicts ε and a learned variance, sampled by DDPM's step.

    The weight is λ of L_hybrid: T / 1000 · L_{t−1} with rescale_learned_sigmas, so 0.001, and
    L_{t−1} without, so 1 / T.
    """
    common = {"in_channels": 3, "out_channels": 6, "family": "openai", "scale_shift": True}
    arguments = {"image_size": size, "channels": channels, "multipliers": list(multipliers)}
    spacing = {} if steps is None else {"steps": steps, "spacing": "linspace"}
    return Model(
        {
            "network": of(kind, **{**arguments, **common, **network}),
            "process": process,
            "parameterization": "Eps",
            "objective": of("Hybrid", weight=weight, levels=256),
            "sampler": {"step": of("DDPM", variance="learned"), **spacing, "guidance": ["Static"]},
            "optimizer": of("torch.optim.AdamW", lr=lr, weight_decay=0.0),
        }
    )


def adm(size: int, multipliers: Sequence[float], classes: int | None = 1000, **more: Any) -> Model:
    """Returns a model of ADM for ImageNet or LSUN."""
    settings: Settings = {
        "channels": 256,
        "process": LINEAR,
        "attention": [32, 16, 8],
        "blocks": 2,
        "head_width": 64,
        "qkv_order": "heads-qkv",
        "resample": "block",
        **({} if classes is None else {"num_classes": classes, "null_class": False}),
        **more,
    }
    if "heads" in more:
        del settings["head_width"]
    return unet(size, multipliers=multipliers, **settings)


def iddpm(size: int, multipliers: Sequence[float], process: Settings, **more: Any) -> Model:
    """Returns a model of Improved DDPM."""
    settings: Settings = {"channels": 128, "attention": [16, 8], "heads": 4, "blocks": 3}
    settings |= {"qkv_order": "heads-qkv", "steps": None, **more}
    return unet(size, multipliers=multipliers, process=process, **settings)


def classifier(
    size: int, multipliers: Sequence[float], process: Settings, blocks: int = 2
) -> Model:
    """Returns a classifier of noisy ImageNet images of ADM."""
    arguments = {"image_size": size, "multipliers": list(multipliers), "blocks": blocks}
    optimizer = of("torch.optim.AdamW", lr=3e-4, weight_decay=0.05)
    settings = {"network": of("ClassifierNetwork", **arguments), "process": process}
    return Model({**settings, "optimizer": optimizer}, kind="NoisyClassifier")


LABELS = {"num_classes": 1000, "null_class": False}
NOT_RESCALED = {"lr": 3e-4, "weight": 1 / 4000, **LABELS}
LSUN_IDDPM = {"blocks": 2, "heads": 1, "attention": [16], "scale_shift": False}
PRESETS: dict[str, Model] = {
    "iddpm_cifar10": iddpm(32, AT_32, COSINE_4000, dropout=0.3, time_scale=0.25),
    "iddpm_imagenet64": iddpm(64, AT_64, COSINE_4000, time_scale=0.25),
    "iddpm_imagenet64_cond": iddpm(64, AT_64, COSINE_4000, channels=192, **NOT_RESCALED),
    "iddpm_lsun_bedroom": iddpm(256, AT_256, LINEAR, **LSUN_IDDPM),
    "iddpm_upsampler_64_256": iddpm(
        256, AT_256, LINEAR_4000, kind="Upsampler", channels=192, blocks=2, **NOT_RESCALED
    ),
    "adm_imagenet64": adm(
        64, AT_64, channels=192, process=COSINE, blocks=3, dropout=0.1, lr=3e-4,
        qkv_order="qkv-heads",
    ),
    "adm_imagenet128": adm(128, AT_128, heads=4),
    "adm_imagenet256": adm(256, AT_256),
    "adm_imagenet256_uncond": adm(256, AT_256, classes=None),
    "adm_imagenet512": adm(512, AT_512),
    "adm_lsun": adm(256, AT_256, classes=None, dropout=0.1, steps=None),
    "adm_upsampler_64_256": adm(256, AT_256, kind="Upsampler", channels=192, heads=4),
    "adm_upsampler_128_512": adm(
        512, AT_256, kind="Upsampler", channels=192, attention=[32, 16]
    ),
    "classifier_imagenet64": classifier(64, AT_64, COSINE, blocks=4),
    "classifier_imagenet128": classifier(128, AT_128, LINEAR),
    "classifier_imagenet256": classifier(256, AT_256, LINEAR),
    "classifier_imagenet512": classifier(512, AT_512, LINEAR),
}  # fmt: skip
