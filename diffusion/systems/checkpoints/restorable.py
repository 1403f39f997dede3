"""Modules that a checkpoint rebuilds, of what it says as much as `Taken` takes."""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.cli import instantiate_module

from diffusion.common import weights
from diffusion.interop.presets import Settings
from diffusion.networks.locked import check_bases
from diffusion.spec import DataSpec
from diffusion.systems.checkpoints.declared import check_network
from diffusion.systems.checkpoints.trust import TRUST, Taken, trusting

ABOUT = ("_class_path", "_instantiator")


class Restorable(L.LightningModule):
    """A module whose `load_from_checkpoint` runs nothing that a file asks for.

    Attributes:
        cache: The folder for files that are computed once; that of `Metrics`, if a trainer has it.
        expects: What the checkpoint that will be loaded was trained on, where it is known before.
        trained: What its checkpoint says of its training, see `settings_of`; None without one.
    """

    cache = Path(".cache")
    expects: DataSpec | None = None
    trained: Mapping[str, Any] = {}

    @property
    def has_weights(self) -> bool:
        """Whether it needs no checkpoint to test and to draw."""
        return False

    @classmethod
    def load_from_checkpoint(  # pyright: ignore  # of fewer kinds of files
        cls,
        checkpoint_path: str | Path,
        map_location: str | torch.device | None = None,
        strict: bool = True,
        weights_only: bool | None = None,
        trust: bool = False,
        key: str = "checkpoint_path",
        moved: Mapping[str, str | Path] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns the module of a checkpoint with its averaged weights.

        Args:
            checkpoint_path: The file.
            map_location: The device; by default the CPU.
            strict: Whether all tensors of the module and no others must be there.
            weights_only: Nothing else is possible; for calls that are written for Lightning.
            trust: Whether you made the file, so that all the classes it names may be made.
            key: What errors call it.
            moved: Where files that it names are now, by where they were: its base, say.
            **kwargs: Arguments of the module, over those in the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is something else, or names what is not taken.
        """
        path = Path(checkpoint_path).expanduser()
        file, content = f"{key}: {path}", weights.read(path, key)
        weights.state(content, key, path)
        if moved and "hyper_parameters" in content:
            content = {
                **content,
                "hyper_parameters": with_moved_files(content["hyper_parameters"], moved),
            }
        initial = torch.random.fork_rng(devices=[])  # initial weights leave no trace
        with initial, trusting(trust, [f"{cls.__module__}.{cls.__qualname__}"]):
            given = arguments_of(cls, content, file)
            try:
                module = instantiate_module(cls, {**given, **kwargs}) if given else cls(**kwargs)
            except TypeError as error:
                made = "expected one made by `diffusion fit`, or the model's arguments"
                raise ValueError(f"{file}; {made} ({error})") from None
            except ValueError as error:
                if isinstance(error.__cause__, FileNotFoundError):  # in a parser's many words
                    raise error.__cause__ from None
                raise
        module.trained = settings_of(content)
        module.on_load_checkpoint(content)
        check_bases(module.state_dict(), content["state_dict"], file)
        try:
            module.load_state_dict(content["state_dict"], strict=strict)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{file} is of another model; expected its weights: {reason}"
            ) from None
        return module.to(map_location or "cpu")


def with_moved_files(value: Any, moved: Mapping[str, str | Path]) -> Any:
    """Returns settings in which files that moved are where they are now."""
    if isinstance(value, Mapping):
        return {key: with_moved_files(part, moved) for key, part in value.items()}
    if isinstance(value, list):
        return [with_moved_files(part, moved) for part in value]
    return str(moved[value]) if isinstance(value, str) and value in moved else value


def settings_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings that a checkpoint was trained with; {} if it was imported."""
    found = checkpoint.get("hyper_parameters") if checkpoint.get("global_step") else None
    return found if isinstance(found, Mapping) else {}


def arguments_of(kind: type[L.LightningModule], content: Mapping[str, Any], file: str) -> Settings:
    """Returns the hyperparameters of a checkpoint as `instantiate_module` reads them.

    Args:
        kind: The class that the module has to be of.
        content: What the file holds.
        file: What errors call it.

    Raises:
        ValueError: If they are none, of another class, or name what is not taken.
    """
    found = content.get("hyper_parameters") or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{file}; expected hyper_parameters by name")
    given = {k: v for k, v in found.items() if k not in ABOUT}
    path = found.get("_class_path", f"{kind.__module__}.{kind.__qualname__}")
    if not given:
        return {}
    if TRUST.get() is None:
        return {"_class_path": path, **given}
    made = Taken(file).object({"class_path": path, "init_args": given}, L.LightningModule, "model")
    if not issubclass(resolve_name(made["class_path"]), kind):
        name = made["class_path"].rpartition(".")[2]
        raise ValueError(f"{file}; expected a {kind.__name__}'s checkpoint, this one is of {name}")
    check_network(made, content["state_dict"], file)
    return {"_class_path": made["class_path"], **made.get("init_args", {})}
