"""`diffusion import` and `diffusion export`: checkpoints of other packages in, folders out."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from lightning.pytorch.cli import LightningCLI
from rich import get_console
from torch import nn

from diffusion.callbacks.save_config import CONFIG
from diffusion.cli.arguments import read_config
from diffusion.cli.checkpoint_config import in_braces, model_of, read_checkpoint
from diffusion.common.weights import read, tensors
from diffusion.interop import exported_model, last_test, layout, lucidrains, openai
from diffusion.interop.diffusers import folder, model_card, scheduler, unet_weights
from diffusion.interop.layout import Names
from diffusion.interop.presets import Model, Settings, node
from diffusion.networks import adapt
from diffusion.spec import DATA, DataSpec
from diffusion.systems.base import System
from diffusion.systems.checkpoints.contents import check_tensors, same_shape
from diffusion.systems.checkpoints.declared import check_network
from diffusion.systems.checkpoints.trust import Taken, trusting, user_words
from diffusion.systems.checkpoints.whole_files import write_checkpoint
from diffusion.systems.diffusion import Diffusion

MODULES = {
    "Diffusion": "diffusion.systems.diffusion.Diffusion",
    "NoisyClassifier": "diffusion.systems.noisy_classifier.NoisyClassifier",
}


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
    target = Path(output)
    if target.exists():
        raise FileExistsError(f"output: {target} exists; expected the name of a new file")
    if preset is not None and from_ != "openai":
        raise ValueError(f"preset: {preset}; expected none, presets are of --from openai")
    said = [model_section(Path(file)) for file in config or []]
    module, section = load_published(from_, Path(weights).expanduser(), said, preset)
    write_checkpoint(untrained_checkpoint(module, section), target)
    network = network_of(module)
    size = sum(p.numel() for p in network.parameters())
    get_console().print(f"wrote {target}: {type(network).__name__}, {size:,} parameters")


def export(
    *,
    to: Literal["diffusers", "safetensors"],
    ckpt: str,
    output: str,
    config: list[str] | None = None,
    license: str = "unknown",
    trust: bool = False,
) -> None:
    """Writes the model of a checkpoint as a folder: for this project, or for diffusers' pipelines.

    "safetensors" is an eighth of the checkpoint: averaged weights in half precision, with the
    configuration. The folder is taken wherever a checkpoint is, as the same model by its digest.

    For "diffusers" its scheduler samples as the checkpoint's own sampler does, or as --config says;
    what diffusers cannot express is refused.

    README.md, the model card, has the figures of the run's last test.

    Args:
        to: Which format.
        ckpt: The checkpoint; its averaged weights are written.
        output: The folder to write, which must not exist.
        config: One over the checkpoint's own, such as configs/sample/ddim50.yaml. It may be
            repeated, later ones win.
        license: Of the weights, for the model card, as the Hub spells it.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    path, target = Path(ckpt), Path(output)
    content = read_checkpoint(path, "ckpt")
    if to == "safetensors":
        if config:
            raise ValueError(f"config: {config[0]}; expected none, the checkpoint's own is kept")
        measured = last_test.measured(last_test.last_record(path))
        card = exported_model.card(target.name, content, license, measured)
        exported_model.write_model(target, content, card)
        get_console().print(f"wrote {target}, for --ckpt_path and wherever a checkpoint is taken")
    else:
        with trusting(trust, user_words(config or [])):
            said = [model_section(Path(file)) for file in config or []]
            module, _ = build([model_of(content, f"ckpt: {path}"), *said])
        export_to_diffusers(module, content, path, target, license)


def export_to_diffusers(
    module: System, content: Mapping[str, Any], path: Path, target: Path, license: str
) -> None:
    """Writes a folder of diffusers.

    Args:
        module: The model, as it shall sample.
        content: What its checkpoint holds.
        path: The checkpoint.
        target: The folder to write.
        license: As for `export`.

    Raises:
        ValueError: If diffusers cannot express it.
    """
    if not isinstance(module, Diffusion):
        raise ValueError(f"ckpt: {path} is of {type(module).__name__}; expected a diffusion model")
    check_tensors(module.state_dict(), content["state_dict"], f"ckpt: {path}", same_shape)
    module.load_state_dict(content["state_dict"])
    network: Any = module.denoiser.network
    unet = unet_weights.unet_config(network, (content.get(DATA) or {}).get("shape"))
    schedule = scheduler.scheduler_config(
        module.process,
        module.denoiser.parameterization,
        module.sampler,
        variance=network.out_channels == 2 * network.in_channels,
    )
    steps, record = len(module.sampler.times(module.process)) - 1, last_test.last_record(path)
    folder.write_folder(
        target,
        unet,
        unet_weights.exported_weights(network),
        schedule,
        model_card.readme(target.name, unet, schedule, steps, license, record),
    )
    get_console().print(
        f"wrote {target} for {schedule['_class_name'].replace('Scheduler', '')}Pipeline"
    )


def load_published(
    source: str, path: Path, said: Sequence[Settings] = (), preset: str | None = None
) -> tuple[System, Settings]:
    """Returns the module of published weights, and the model section that describes it.

    Args:
        source: Whose they are, as `import_` has it.
        path: The file, or the folder.
        said: Model sections over what the weights tell.
        preset: As `import_` has it.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If a tensor has no place, or something has no counterpart here.
    """
    model: Model | None
    names: Callable[[Any], Names]
    if source == "diffusers":
        (model, values), names = folder.read_folder(path), unet_weights.names
    elif source == "ddpm-torch":
        (model, values), names = lucidrains.recognised(read(path), path), lucidrains.names
    else:
        values, names = tensors(read(path), path), openai.names
        described = any("network" in section.get("init_args", section) for section in said)
        guessed = preset is not None or not described
        model = openai.preset_of(values, path, preset) if guessed else None
    first: list[Settings] = []
    if model is not None:
        first = [node(MODULES[model.kind], **model.settings)]
        found = Taken(f"weights: {path}").object(first[0], L.LightningModule, "model")
        check_network(found, values, f"weights: {path}")
    module, section = build([*first, *said])
    network: Any = network_of(module)
    network.load_state_dict(layout.imported_weights(network, names(network), values))
    return module, section


def model_section(path: Path) -> Settings:
    """Returns the model section of a configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has none, or is no configuration.
    """
    section = read_config(str(path)).get("model")
    if not isinstance(section, Mapping):
        raise ValueError(f"config: {path}; expected a configuration with a model section")
    return dict(section)


class ModelOnly(LightningCLI):
    """The command line's reader of a model section, without a trainer."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """None is needed."""


def build(sections: Sequence[Mapping[str, Any]]) -> tuple[System, Settings]:
    """Returns the module of model sections, later ones over earlier ones, and the merged section.

    The command line's own parser reads them, so that the module's hyperparameters are those that
    `diffusion fit` would have saved.
    """
    from diffusion.cli.main import Parser  # which imports the commands

    default = {"class_path": MODULES["Diffusion"]}
    layers = [in_braces({"model": dict(section)}) for section in (default, *sections)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        cli = ModelOnly(
            L.LightningModule,
            args=[f"--config={layer}" for layer in layers],
            run=False,
            subclass_mode_model=True,
            parser_class=Parser,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
        )
    module: Any = cli.model
    return module, yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))["model"]


def network_of(module: System) -> nn.Module:
    """Returns the network of a module."""
    network: Any = module.denoiser.network if isinstance(module, Diffusion) else module.network
    return network


def untrained_checkpoint(module: System, section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `diffusion fit` would have saved before its first step."""
    made: Any = module.configure_optimizers()
    made = made if isinstance(made, dict) else {"optimizer": made}
    schedules = [made["lr_scheduler"]["scheduler"]] if "lr_scheduler" in made else []
    network = adapt(network_of(module))
    data = {}
    if (channels := network.in_channels) and (size := network.image_size):
        data = {DATA: DataSpec(None, (channels, size, size), network.num_classes).plain()}
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
        "state_dict": module.state_dict(),
        "callbacks": {},
        "optimizer_states": [made["optimizer"].state_dict()],
        "lr_schedulers": [schedule.state_dict() for schedule in schedules],
        "hparams_name": "kwargs",
        "hyper_parameters": dict(module.hparams),
        CONFIG: yaml.safe_dump({"model": dict(section)}, sort_keys=False),
        **data,
    }
