"""Python's face: train a model on some data, and draw from a checkpoint.

>>> from diffusion.pipeline import Pipeline, trainer                               # doctest: +SKIP
>>> pipeline = Pipeline.from_config("configs/ddpm_folder_small.yaml")              # doctest: +SKIP
>>> pipeline.fit(ImageFolder("pictures", size=32), "runs/mine", max_steps=6000)    # doctest: +SKIP
>>> pipeline = Pipeline.from_pretrained("runs/mine")                               # doctest: +SKIP
>>> pipeline.save(pipeline.draw(16, seed=1), "drawn")                              # doctest: +SKIP
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
import yaml
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import LambdaCallback
from PIL import Image
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.monitor import Monitor
from diffusion.callbacks.predictions import asked_for, origin_of
from diffusion.callbacks.save_config import CONFIG
from diffusion.common import weights
from diffusion.common.alignment import Finder
from diffusion.common.files import file_of
from diffusion.common.pixels import quantize
from diffusion.data import Identities, Images
from diffusion.data.requests.base import Ask, in_order
from diffusion.data.requests.prompts import Prompts
from diffusion.networks import ControlMap
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.systems.averages import EMA
from diffusion.systems.cascade import Cascade
from diffusion.systems.checkpoints import latest
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.checkpoints.whole_files import with_whole_files
from diffusion.systems.checks import check_given
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.generative import Generative
from diffusion.systems.texts import remember
from diffusion.systems.trainer import DEFAULTS, callbacks_of, check_trainer

HUB = re.compile(r"[\w.-]+/[\w.-]+")


def trainer(run: str | Path | None = None, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """Returns a Trainer with this project's defaults.

    Args:
        run: The run's folder, with checkpoints; None to write nothing and to draw no bar.
        *callbacks: More than `Checkpoint` and `Monitor`, which a run with a folder has; averages
            are those of `EMA` by default.
        **options: Of the Trainer, over the defaults.
    """
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    where: Mapping[str, Any] = quiet if run is None else {"default_root_dir": run}
    chosen = {"max_epochs": -1, "logger": False, **DEFAULTS, **where, **options}
    check_trainer({"default_root_dir": ".", **chosen})
    given = {type(callback) for callback in callbacks}
    kinds = (EMA,) if run is None else (EMA, Checkpoint, Monitor)
    every = [*(kind() for kind in kinds if kind not in given), *callbacks]
    return with_whole_files(L.Trainer(**chosen, callbacks=every))


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
        self._origins = WeakTensorKeyDictionary()  # of what was drawn, for `save`

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
        cls,
        checkpoint: str | Path,
        trust: bool = False,
        device: str | torch.device | None = None,
        moved: Mapping[str, str | Path] | None = None,
    ) -> Self:
        """Returns a trained model, with averaged weights.

        Args:
            checkpoint: A checkpoint; a run's folder, of which the newest is taken; a folder that
                `diffusion export` wrote; one of diffusers with a UNet2DModel; or the name of such a
                model on the hub, "owner/name".
            trust: Whether you made it, so that all the classes it names may be made.
            device: Where to; by default a GPU if there is one.
            moved: Where files that it names are now, by where they were: a ControlNet's base, say.

        Raises:
            FileNotFoundError: If there is nothing of this name.
            ValueError: If it is something else, or names what is not taken.
        """
        from diffusion.cli.convert import load_published

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
        ours = file_of(path).is_file()
        system = _restored(path, trust, moved) if ours else load_published("diffusers", path)[0]
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(_drawing(system.to(place).eval(), f"checkpoint: {path}"))

    def fit(self, data: Images, run: str | Path | None, **options: Any) -> Self:
        """Trains, and returns the pipeline, which draws with the averaged weights.

        Args:
            data: What to train on.
            run: The run's folder; None to write nothing.
            **options: Of the Trainer, such as max_steps; `callbacks` and all others of `trainer`.
        """
        callbacks = list(options.pop("callbacks", ()))
        if self.section is not None:  # into checkpoints
            config = {CONFIG: yaml.safe_dump({"model": dict(self.section)}, sort_keys=False)}
            callbacks.append(LambdaCallback(on_save_checkpoint=lambda *to: to[-1].update(config)))
        made = trainer(run, *callbacks, **options)
        made.fit(self.system, data)
        self.averages = [x for x in callbacks_of(made) if isinstance(x, EMA)]
        return self

    def draw(
        self,
        n: int | None = None,
        *,
        labels: Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        edit: str | Path | None = None,
        mask: str | Path | None = None,
        control: Mapping[str, str | Path] | str | Path | None = None,
        invert_control: bool = False,
        image_prompt: str | Path | None = None,
        identity: str | Path | None = None,
        pose: str | Path | None = None,
        finder: Finder | None = None,
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
            control: A picture, or a folder of pictures, as control, or {name: …} of them.
            invert_control: Whether they are dark on white where controls are white on black.
            image_prompt: A picture, or a folder of pictures, that samples are to be like.
            identity: A picture, or a folder of pictures, of whom samples are to be.
            pose: Five points of a face: a text, a picture with one beside it, or a photograph, as
                `Identities` says.
            finder: What finds the face in a photograph, such as `FaceFinder`.
            seed: Of the noise.
            sampler: How to sample, if not as the model was trained with; for a single model.
            batch_size: Samples drawn at once.
            pil: Whether to return PIL pictures instead of a tensor (n, *shape).

        Raises:
            ValueError: If the model does not read what is given, or the sampler does not fit.
        """
        if image_prompt is not None and prompts is None and self.system.reads_texts:
            prompts = ""
        data = self._requests(
            n, prompts, labels=labels, edit=edit, mask=mask, image_prompt=image_prompt,
            identity=identity, pose=pose,
        )  # fmt: skip
        data.finder = finder
        if control is not None:
            several = isinstance(control, Mapping)
            named = {k: str(v) for k, v in control.items()} if several else str(control)
            data.control, data.invert_control = named, invert_control
        images, origins = list[Tensor](), list[dict[str, str]]()
        with self._sampling_as(seed, sampler):
            self._check(data)
            for numbers in in_order(data.samples, batch_size):
                batch = move_data_to_device(data.request(numbers), self.system.device)
                batch = data.on_after_batch_transfer(batch, 0)
                images.append(self.system.generate(batch, numbers).cpu())
                origins += asked_for(self.system, batch, data)
            origin = origin_of(self.system)
        x = torch.cat(images)
        self._origins[x] = [{**origin, **of_one} for of_one in origins]
        if not pil:
            return x
        if x.ndim != 4:
            shape = tuple(x.shape[1:])
            raise ValueError(f"pil: true; expected false, as samples of {shape} are no pictures")
        pixels = quantize(x).permute(0, 2, 3, 1).squeeze(-1).numpy()  # without channels if grey
        return [Image.fromarray(image) for image in pixels]

    def save(self, images: Tensor, where: str | Path) -> list[Path]:
        """Writes pictures (n, C, H, W) in [−1, 1] to a folder as 000000.png and so on.

        What `draw` returned says in text chunks how it was made, as in `diffusion predict`.

        Returns:
            The files.
        """
        files = [Path(where).expanduser() / f"{i:06d}.png" for i in range(len(images))]
        origins = self._origins.get(images) or [{}] * len(images)
        for image, file, origin in zip(quantize(images), files, origins):
            pictures.save(image, file, origin)
        return files

    def _requests(self, n: int | None, prompts: Any, **given: Any) -> "Asked":
        """Returns requests for n samples of what is given."""
        spec = self._spec()
        classes = range((spec.num_classes if self.system.reads_labels else None) or 1)
        prompts = [prompts] if isinstance(prompts, str) else prompts
        samples = len(given["labels"] or prompts or classes) if n is None else n
        labels = given.pop("labels")
        paths = {key: str(path) for key, path in given.items() if path is not None}
        asked = Asked(spec, prompts, samples=samples, labels=labels and list(labels), **paths)
        every = [one for stage in self._stages() for one in stage.denoiser.contract.conditioners]
        asked.channels = {one.name: one.planes_of for one in every if isinstance(one, ControlMap)}
        return asked

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

    @contextmanager
    def _sampling_as(self, seed: int, sampler: Sampler | None) -> Iterator[None]:
        """Draws with averaged weights, this seed and this sampler until the block ends."""
        system = self.system
        with ExitStack() as changed:
            for ema in self.averages:
                changed.enter_context(ema.averaged(system))
            changed.callback(setattr, system, "seed", system.seed)
            system.seed = seed
            if sampler is not None:
                if not isinstance(system, Diffusion):
                    raise ValueError(
                        f"sampler: {type(sampler.step).__name__}; expected None, as "
                        f"{type(system).__name__} is made with its samplers"
                    )
                trained = {"p_uncond": system.p_uncond, "start": system.start}
                system.check_drawing(sampler, trained)
                changed.callback(setattr, system, "sampler", system.sampler)
                system.sampler = sampler
            yield

    def _check(self, data: "Asked") -> None:
        """Refuses what the model does not read."""
        system, name = self.system, type(self.system).__name__
        given = (
            ("labels", data.labels, system.reads_labels),
            ("prompts", data.texts, system.reads_texts),
        )
        for key, values, is_read in given:
            if values and not is_read:
                raise ValueError(f"{key}: {values[0]!r}; expected None, as the {name} reads none")
        if data.texts is None and system.reads_texts:
            raise ValueError(f"prompts: None; expected texts, as the {name} reads them")
        _ = data.edits  # a file that is not there is named before what is made of it
        check_given(self._stages(), data)
        for stage in self._stages():
            for guide in stage.sampler.guidance:
                guide.check(stage.process, stage.spec or data.spec)
        if data.texts is not None:
            remember(system, data, system.cache, None)


class Asked(Identities):
    """Requests without data: what is drawn is known from a checkpoint.

    Args:
        spec: What is drawn.
        prompts: Texts, in turn.
        **asked: See `Identities`.
    """

    def __init__(self, spec: DataSpec, prompts: Sequence[str] | None, **asked: Any) -> None:
        super().__init__(**asked)
        self.shape, self.num_classes = spec.shape, spec.num_classes
        self.classes, self.levels = spec.classes, spec.levels
        self.texts = None if prompts is None else list(prompts)
        self.channels: dict[str, int] = {}

    @property
    def control_channels(self) -> dict[str, int]:
        """See `Images`."""
        return self.channels

    @property
    def posed(self) -> list[str]:
        """See `Identities`: of controls nothing is known but that points are in colour."""
        return [name for name, channels in self.channels.items() if channels == 3]

    def likenesses(self) -> None:
        """Returns nothing, as there are no pictures."""

    def setup(self, stage: str) -> None:
        """Nothing."""

    def asks(self) -> list[Ask]:
        """Returns the prompts, and the labels unless prompts alone are given."""
        prompts = [] if self.texts is None else [Prompts(self.texts)]
        return [*prompts, *(super().asks() if self.labels is not None or not prompts else ())]


def _drawing(system: Any, file: str) -> Generative:
    if not isinstance(system, Generative):
        raise ValueError(f"{file}; expected a model that draws, it is a {type(system).__name__}")
    return system


def _restored(path: Path, trust: bool, moved: Mapping[str, str | Path] | None) -> L.LightningModule:
    """Returns the system of a checkpoint."""
    content = weights.read(path, "checkpoint")
    about = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(about, Mapping) or "_class_path" not in about:
        raise ValueError(
            f"checkpoint: {path}; expected one that says what it is of, as `diffusion fit` and "
            "models of Pipeline.from_config write it"
        )
    system = Restorable.load_from_checkpoint(path, trust=trust, key="checkpoint", moved=moved)
    if isinstance(system, Diffusion):
        system.check_drawing(system.sampler, system.trained)
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
