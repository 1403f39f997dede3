"""Python's face: train a model on some data, and draw from a checkpoint.

>>> from diffusion.pipeline import Pipeline, trainer                               # doctest: +SKIP
>>> pipeline = Pipeline.from_config("configs/ddpm_folder_small.yaml")              # doctest: +SKIP
>>> pipeline.fit(ImageFolder("pictures", size=32), "runs/mine", max_steps=6000)    # doctest: +SKIP
>>> pipeline = Pipeline.from_pretrained("runs/mine")                               # doctest: +SKIP
>>> pipeline.save(pipeline.draw(16, seed=1), "drawn")                              # doctest: +SKIP
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
import yaml
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.monitor import Monitor
from diffusion.callbacks.save_config import CONFIG
from diffusion.common import weights
from diffusion.common.pixels import quantize
from diffusion.data import Images
from diffusion.data.requests.base import in_order
from diffusion.interop import layout
from diffusion.interop.diffusers import folder, unet_weights
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.systems.averages import EMA
from diffusion.systems.cascade import Cascade
from diffusion.systems.checkpoints import latest
from diffusion.systems.checkpoints.declared import check_network, made
from diffusion.systems.checkpoints.restorable import Restorable, settings_of
from diffusion.systems.checkpoints.trust import Taken, trusting
from diffusion.systems.checks import check_forgotten, check_given
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.generative import Generative
from diffusion.systems.texts import remember
from diffusion.systems.trainer import DEFAULTS, check_trainer

HUB = re.compile(r"[\w.-]+/[\w.-]+")


def trainer(run: str | Path | None = None, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """Returns a Trainer with this project's defaults.

    Args:
        run: The run's folder, with checkpoints; None to write nothing and to draw no bar.
        *callbacks: More than `Checkpoint` and `Monitor`, which a run with a folder has; averages
            are those of `EMA` by default.
        **options: Of the Trainer, over the defaults.
    """
    have = {type(callback) for callback in callbacks}
    own = [EMA()] if not have & {EMA} else []
    if run is None:
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar")
        options = {**dict.fromkeys(quiet, False), **options}
    else:
        own += [kind() for kind in (Checkpoint, Monitor) if kind not in have]
        options = {"default_root_dir": run, "logger": False, **options}
    check_trainer({"default_root_dir": ".", **options})
    epochs = {} if "max_epochs" in options else {"max_epochs": -1}
    return L.Trainer(**{**DEFAULTS, **epochs, **options}, callbacks=[*own, *callbacks])


class Pipeline:
    """A model that draws, with all that one asks of it.

    Args:
        system: What draws.
        section: The model section that describes it, for its checkpoints.

    Attributes:
        system: What draws, and can be trained by `trainer(…).fit(pipeline.system, data)`.
    """

    def __init__(self, system: Generative, section: Mapping[str, Any] | None = None) -> None:
        self.system: Any = system
        self.section = section
        self.averages: list[EMA] = []

    @classmethod
    def from_config(cls, *configs: str | Path | Mapping[str, Any]) -> Self:
        """Returns an untrained model, whose checkpoints can be loaded again.

        Args:
            *configs: YAML files with a model section, or such sections; later ones win.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If one is no configuration, or the model draws nothing.
        """
        from diffusion.cli.convert import build, model_section

        sections = [
            dict(config) if isinstance(config, Mapping) else model_section(Path(config))
            for config in configs
        ]
        system, section = build(sections)
        return cls(_drawing(system, "config"), section)

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path, trust: bool = False, device: str | torch.device | None = None
    ) -> Self:
        """Returns a trained model, with averaged weights.

        Args:
            checkpoint: A checkpoint; a run's folder, of which the newest is taken; a folder of
                diffusers with a UNet2DModel, as `diffusion export` writes it; or the name of such
                a model on the hub, "owner/name".
            trust: Whether you made it, so that all the classes it names may be made.
            device: Where to; by default a GPU if there is one.

        Raises:
            FileNotFoundError: If there is nothing of this name.
            ValueError: If it is something else, or names what is not taken.
        """
        path = Path(checkpoint).expanduser()
        if not path.exists():
            if not isinstance(checkpoint, str) or not HUB.fullmatch(checkpoint):
                raise FileNotFoundError(
                    f"checkpoint: {path}; expected a checkpoint, a run's folder, a folder of "
                    "diffusers, or owner/name on the hub"
                )
            path = _fetched(checkpoint)
        for place in (path, path / "checkpoints"):
            if place.is_dir() and (found := latest.find(place)) is not None:
                path = found
                break
        system = _from_folder(path) if path.is_dir() else _restored(path, trust)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(_drawing(system.to(place).eval(), f"checkpoint: {path}"))

    def fit(self, data: Images, run: str | Path | None, **options: Any) -> Self:
        """Trains, and returns the pipeline, which draws with the averaged weights.

        Args:
            data: What to train on.
            run: The run's folder; None to write nothing.
            **options: Of the Trainer, such as max_steps; `callbacks` and all others of `trainer`.
        """
        described = [] if self.section is None else [Described(self.section)]
        made = trainer(run, *options.pop("callbacks", ()), *described, **options)
        made.fit(self.system, data)
        callbacks: list[Any] = made.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        self.averages = [callback for callback in callbacks if isinstance(callback, EMA)]
        return self

    def draw(
        self,
        n: int | None = None,
        *,
        labels: Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        edit: str | Path | None = None,
        mask: str | Path | None = None,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        pil: bool = False,
    ) -> Any:
        """Returns samples (n, *shape), or PIL pictures.

        Sample i is the same in any batch, and that of `diffusion predict` with this seed.

        Args:
            n: How many; by default one for each label or prompt, else one for each class, or one.
            labels: Classes by number or name, in turn; by default all of them in turn.
            prompts: Texts, in turn.
            edit: A picture, or a folder of pictures, to continue from.
            mask: What to repaint of them: a picture that is white there, or "x0,y0,x1,y1".
            seed: Of the noise.
            sampler: How to sample, if not as the model was trained with; for a single model.
            batch_size: Samples drawn at once.
            pil: Whether to return PIL pictures instead of a tensor (n, *shape).

        Raises:
            ValueError: If the model does not read what is given, or the sampler does not fit.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        n = len(labels or prompts or self._classes() or [0]) if n is None else n
        data = Asked(
            self._spec(),
            prompts,
            samples=n,
            labels=None if labels is None else list(labels),
            edit=None if edit is None else str(edit),
            mask=None if mask is None else str(mask),
        )
        drawn, system = [], self.system
        with ExitStack() as changed:
            for ema in self.averages:
                changed.enter_context(ema.averaged(system))
            self._change(changed, seed, sampler)
            self._check(data, labels)
            for numbers in in_order(n, batch_size):
                batch = move_data_to_device(data.request(numbers), system.device)
                batch = data.on_after_batch_transfer(batch, 0)
                drawn.append(system.generate(batch, numbers).cpu())
        x = torch.cat(drawn)
        if not pil:
            return x
        if x.ndim != 4:
            raise ValueError(f"pil: true; expected false, as samples of shape {x.shape[1:]} are no "
                             "pictures")  # fmt: skip
        return [Image.fromarray(_channels_last(image)) for image in quantize(x)]

    def save(self, images: Tensor, where: str | Path) -> list[Path]:
        """Writes pictures (n, C, H, W) in [−1, 1] to a folder as 000000.png and so on.

        Returns:
            The files.
        """
        files = [Path(where).expanduser() / f"{i:06d}.png" for i in range(len(images))]
        for image, file in zip(quantize(images), files):
            pictures.save(image, file)
        return files

    def _classes(self) -> range | None:
        classes = self._spec().num_classes if self.system.reads_labels else None
        return None if classes is None else range(classes)

    def _stages(self) -> list[Diffusion]:
        parts = self.system.stages if isinstance(self.system, Cascade) else [self.system]
        return [part for part in parts if isinstance(part, Diffusion)]

    def _spec(self) -> DataSpec:
        """Returns what is drawn: what the model was trained on, as far as it is known."""
        stages = self._stages()
        known = next((s.spec for s in stages if s.reads_labels and s.spec is not None), None)
        known = known or (stages[-1].spec if stages else None) or DataSpec(None, (1,))
        return DataSpec(
            known.name, self.system.shape, known.num_classes, known.classes, known.levels
        )

    def _change(self, changed: ExitStack, seed: int, sampler: Sampler | None) -> None:
        """Sets seed and sampler, until the stack ends."""
        system = self.system
        changed.callback(setattr, system, "seed", system.seed)
        system.seed = seed
        if sampler is None:
            return
        if not isinstance(system, Diffusion):
            raise ValueError(
                f"sampler: {type(sampler.step).__name__}; expected None, as {type(system).__name__}"
                " is made with its samplers"
            )
        trained = {"p_uncond": system.p_uncond, "start": system.start}
        check_forgotten(sampler, trained, system.denoiser.contract)
        changed.callback(setattr, system, "sampler", system.sampler)
        system.sampler = sampler

    def _check(self, data: "Asked", labels: Sequence[int | str] | None) -> None:
        """Refuses what the model does not read.

        Raises:
            ValueError: If there is such a thing.
        """
        system, name = self.system, type(self.system).__name__
        if labels is not None and not system.reads_labels:
            raise ValueError(f"labels: {labels}; expected None, as the {name} reads no labels")
        if data.prompts is not None and not system.reads_texts:
            raise ValueError(f"prompts: {data.prompts[0]!r}; expected None, as the {name} reads no "
                             "texts")  # fmt: skip
        if data.prompts is None and system.reads_texts:
            raise ValueError(f"prompts: None; expected texts, as the {name} reads them")
        check_given(self._stages(), data)
        for stage in self._stages():
            for guide in stage.sampler.guidance:
                guide.check(stage.process, stage.spec or data.spec)
        if data.prompts is not None:
            remember(system, data, system.cache, None)


class Described(L.Callback):
    """Puts the model section of a configuration into checkpoints.

    Args:
        section: It.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        self.text = yaml.safe_dump({"model": dict(section)}, sort_keys=False)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts it there."""
        checkpoint[CONFIG] = self.text


class Asked(Images):
    """Requests without data: what is drawn is known from a checkpoint.

    Args:
        spec: What is drawn.
        prompts: Texts, in turn.
        **asked: See `Images`.
    """

    def __init__(self, spec: DataSpec, prompts: Sequence[str] | None, **asked: Any) -> None:
        super().__init__(**asked)
        self.shape, self.num_classes = spec.shape, spec.num_classes
        self.classes, self.levels = spec.classes, spec.levels
        self.prompts, self.texts = prompts, None if prompts is None else list(prompts)

    def setup(self, stage: str) -> None:
        """Nothing."""

    def request(self, numbers: Sequence[int]) -> dict[str, Any]:
        """See `Images`; with prompts, "text", and no labels unless they are asked for."""
        batch = super().request(numbers)
        if self.prompts is not None:
            batch["text"] = [self.prompts[i % len(self.prompts)] for i in numbers]
            if self.labels is None:
                batch.pop("label", None)
        return batch


def _drawing(system: Any, file: str) -> Generative:
    if not isinstance(system, Generative):
        raise ValueError(f"{file}; expected a model that draws, it is a {type(system).__name__}")
    return system


def _restored(path: Path, trust: bool) -> L.LightningModule:
    """Returns the system of a checkpoint."""
    content = weights.read(path, "checkpoint")
    about = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(about, Mapping) or "_class_path" not in about:
        raise ValueError(
            f"checkpoint: {path}; expected one that says what it is of, as `diffusion fit` and "
            "models of Pipeline.from_config write it"
        )
    try:
        system = Restorable.load_from_checkpoint(path, trust=trust)
    except ValueError as error:
        raise ValueError(str(error).replace("checkpoint_path", "checkpoint", 1)) from None
    if isinstance(system, Diffusion):
        check_forgotten(system.sampler, settings_of(content), system.denoiser.contract)
    return system


def _from_folder(path: Path) -> L.LightningModule:
    """Returns the system of a folder of diffusers."""
    model = folder.describe(path)
    values = folder.weights(path)
    kind = f"{Diffusion.__module__}.{Diffusion.__name__}"
    settings = {key: value for key, value in model.settings.items() if key != "optimizer"}
    with trusting(False):
        section = {"class_path": kind, "init_args": settings}
        found = Taken(f"checkpoint: {path}").object(section, Diffusion, "model")
    check_network(found, values, f"checkpoint: {path}")
    system = made(found)
    network = system.denoiser.network
    network.load_state_dict(layout.ours(network, unet_weights.names(network), values))
    return system


def _fetched(name: str) -> Path:
    """Returns the folder of a model of the hub."""
    try:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "*.bin"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # of its many kinds, and of networks
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ValueError(
            f"checkpoint: {name}; expected a file, a folder, or a model that the hub has ({reason})"
        ) from None


def _channels_last(image: Tensor) -> Any:
    """Returns a picture uint8 (C, H, W) as PIL reads it."""
    return image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
