"""`diffusion import` and `diffusion export`: checkpoints of other packages in, folders out."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from lightning.pytorch.cli import LightningCLI
from rich import get_console
from torch import Tensor, nn

from diffusion.callbacks.checkpoint import save
from diffusion.callbacks.save_config import CONFIG
from diffusion.cli import checkpoint_config, yaml_reader
from diffusion.cli.arguments import check_file
from diffusion.common.files import decoded
from diffusion.common.weights import read, tensors
from diffusion.interop import layout, lucidrains, openai
from diffusion.interop.diffusers import folder, model_card, scheduler, unet_weights
from diffusion.interop.layout import Names
from diffusion.interop.presets import Model
from diffusion.networks import adapt
from diffusion.spec import DATA, DataSpec
from diffusion.systems.base import System
from diffusion.systems.checkpoints.contents import check_tensors, same_shape
from diffusion.systems.checkpoints.declared import check_network
from diffusion.systems.checkpoints.trust import Taken, trusting, user_words
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.noisy_classifier import NoisyClassifier

Read = tuple[Model | None, dict[str, Tensor], Callable[[Any], Names]]
MODULES: dict[str, type[System]] = {"Diffusion": Diffusion, "NoisyClassifier": NoisyClassifier}
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
QUIET |= {"enable_progress_bar": False, "enable_model_summary": False}


def import_(
    *,
    from_: Literal["openai", "diffusers", "ddpm-torch"],
    weights: str,
    output: str,
    preset: str | None = None,
    config: list[str] | None = None,
) -> None:
    """Makes a checkpoint of this project from published weights.

    It works like one that `diffusion fit` wrote: for test, predict and validate with --ckpt_path,
    to be trained further, and classifiers for guidance. Every tensor of the file has its place, or
    the import fails and names the first ones that have none.

    Args:
        from_: Whose they are: improved-diffusion's and guided-diffusion's ("openai"), a folder of
            diffusers with a UNet2DModel, or denoising-diffusion-pytorch's ("ddpm-torch").
        weights: The file, or the folder.
        output: The checkpoint to write, X.ckpt.
        preset: Which published model of OpenAI's it is, where shapes do not tell.
        config: A configuration whose model section says what the weights do not, or says it
            otherwise. It may be repeated, later ones win.
    """
    path, target = Path(weights).expanduser(), Path(output)
    if target.exists():
        raise FileExistsError(f"output: {target} exists; expected the name of a new file")
    if preset is not None and from_ != "openai":
        raise ValueError(f"preset: {preset}; expected none, presets are of --from openai")
    said = [model_section(Path(file)) for file in config or []]
    described = any("network" in section.get("init_args", section) for section in said)
    model, values, names = READERS[from_](path, preset, described)
    first = [] if model is None else [section_of(model)]
    for section in first:
        found = Taken(f"weights: {path}").object(section, L.LightningModule, "model")
        check_network(found, values, f"weights: {path}")
    module, settings = build([*first, *said])
    network = network_of(module)
    network.load_state_dict(layout.ours(network, names(network), values))
    save(checkpoint(module, settings), target)
    size = sum(p.numel() for p in network.parameters())
    get_console().print(f"wrote {target}: {type(network).__name__}, {size:,} parameters")


def export(
    *,
    to: Literal["diffusers"],
    ckpt: str,
    output: str,
    config: list[str] | None = None,
    license: str = "unknown",
    trust: bool = False,
) -> None:
    """Writes the model of a checkpoint as a folder that diffusers' pipelines load.

    Its scheduler samples as the checkpoint's own sampler does, or as --config says; what diffusers
    cannot express is refused. README.md, the model card, has the figures of the run's last test.

    Args:
        to: Whose format.
        ckpt: The checkpoint; its averaged weights are written.
        output: The folder to write, which must not exist.
        config: One over the checkpoint's own, such as configs/sample/ddim50.yaml. It may be
            repeated, later ones win.
        license: Of the weights, for the model card, as the Hub spells it.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    path, target = Path(ckpt), Path(output)
    content = checkpoint_config.read_checkpoint(path, "ckpt")
    with trusting(trust, user_words(config or [])):
        said = [model_section(Path(file)) for file in config or []]
        module, _ = build([checkpoint_config.model_of(content, f"ckpt: {path}"), *said])
    if not isinstance(module, Diffusion):
        raise ValueError(f"ckpt: {path} is of {type(module).__name__}; expected a diffusion model")
    check_tensors(module.state_dict(), content["state_dict"], f"ckpt: {path}", same_shape)
    module.load_state_dict(content["state_dict"])
    network: Any = module.denoiser.network
    unet = unet_weights.config(network, (content.get(DATA) or {}).get("shape"))
    schedule = scheduler.config(
        module.process,
        module.denoiser.parameterization,
        module.sampler,
        variance=network.out_channels == 2 * network.in_channels,
    )
    steps = len(module.sampler.times(module.process)) - 1
    folder.write(
        target,
        unet,
        unet_weights.theirs(network),
        schedule,
        model_card.text(target.name, unet, schedule, steps, license, model_card.figures(path)),
    )
    get_console().print(
        f"wrote {target} for {schedule['_class_name'].replace('Scheduler', '')}Pipeline"
    )


def read_openai(path: Path, preset: str | None, named: bool) -> Read:
    """Returns the model (None if a configuration names it), the weights, and their names."""
    values = tensors(read(path), path)
    recognised = not named or preset is not None
    return openai.preset_of(values, path, preset) if recognised else None, values, openai.names


def read_lucidrains(path: Path, preset: str | None, named: bool) -> Read:
    """Returns what `read_openai` does."""
    values, tables = lucidrains.parts(read(path), path)
    return lucidrains.describe(values, tables), values, lucidrains.names


def read_diffusers(path: Path, preset: str | None, named: bool) -> Read:
    """Returns what `read_openai` does."""
    return folder.describe(path), folder.weights(path), unet_weights.names


READERS = {"openai": read_openai, "diffusers": read_diffusers, "ddpm-torch": read_lucidrains}


def model_section(path: Path) -> dict[str, Any]:
    """Returns the model section of a configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has none, or is no configuration.
    """
    check_file(str(path))
    content = yaml_reader.read_yaml(decoded(path, "config"), f"config: {path}")
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise ValueError(f"config: {path}; expected a configuration with a model section")
    return dict(content["model"])


def section_of(model: Model) -> dict[str, Any]:
    """Returns the model section for what was recognised."""
    kind = MODULES[model.kind]
    return {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": model.settings}


def build(sections: Sequence[Mapping[str, Any]]) -> tuple[System, dict[str, Any]]:
    """Returns the module of model sections, later ones over earlier ones, and the merged section.

    The command line's own parser reads them, so that the module's hyperparameters are those that
    `diffusion fit` would have saved.
    """
    from diffusion.cli.main import Parser  # which imports the commands

    args = []
    default = {"class_path": f"{Diffusion.__module__}.{Diffusion.__name__}"}
    with tempfile.TemporaryDirectory() as at:
        for i, section in enumerate([default, *sections]):
            file = Path(at) / f"{i}.yaml"
            file.write_text(yaml.safe_dump({"model": dict(section)}), encoding="utf-8")
            args += ["--config", str(file)]
        with without_remarks():
            cli = LightningCLI(
                L.LightningModule,
                args=args,
                run=False,
                subclass_mode_model=True,
                parser_class=Parser,
                save_config_callback=None,
                seed_everything_default=False,
                trainer_defaults=QUIET,
                auto_configure_optimizers=False,
            )
    module: Any = cli.model
    return module, yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))["model"]


@contextmanager
def without_remarks() -> Iterator[None]:
    """Keeps Lightning from saying which devices it will not use, and that it is given arguments."""
    remarks = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = remarks.level
    remarks.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            yield
    finally:
        remarks.setLevel(level)


def network_of(module: System) -> nn.Module:
    """Returns the network of a module."""
    network: Any = module.denoiser.network if isinstance(module, Diffusion) else module.network
    return network


def checkpoint(module: System, section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `diffusion fit` would have saved before its first step."""
    made: Any = module.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    schedule = [made["lr_scheduler"]["scheduler"].state_dict()] if isinstance(made, dict) else []
    found = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
        "state_dict": module.state_dict(),
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": schedule,
        "hparams_name": "kwargs",
        "hyper_parameters": dict(module.hparams),
        CONFIG: yaml.safe_dump({"model": dict(section)}, sort_keys=False),
    }
    network = adapt(network_of(module))
    if (channels := network.in_channels) and (size := network.image_size):
        found[DATA] = DataSpec(None, (channels, size, size), network.num_classes).plain()
    return found
