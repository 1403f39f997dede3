"""What can be known to fail before training starts."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from diffusion.common.weights import read, state
from diffusion.condition import Forget, named_after
from diffusion.networks import Network
from diffusion.objective import Objective
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.spec import DataSpec
from diffusion.step import Step
from diffusion.systems.averages import RAW, STEPS

LARGEST = 10**9  # of counters


LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 1,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
}


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuses what Lightning takes without a word and then fails with, or does nothing.

    Args:
        options: Of the trainer.

    Raises:
        ValueError: If a number is out of its range, or the run has no folder.
    """
    for key, least in LEAST.items():
        value = options.get(key)
        if value is not None and value < least:
            raise ValueError(f"trainer.{key}: {value}; expected at least {least}")
    steps, interval = options.get("max_steps", -1), options.get("val_check_interval")
    if steps != -1 and steps < 1:
        raise ValueError(f"trainer.max_steps: {steps}; expected at least 1, or -1 for no end")
    if isinstance(interval, int | float) and interval <= 0:
        raise ValueError(f"trainer.val_check_interval: {interval}; expected at least 1")
    run = options.get("default_root_dir")
    if not run or Path(run).is_file():
        raise ValueError(f"trainer.default_root_dir: {run!r}; expected a folder for the run")


def check_weights(module: nn.Module, command: str, run: Path, path: str | None) -> None:
    """Refuses to measure, or to draw with, weights that nobody has trained.

    Args:
        module: With `has_weights` if it needs no checkpoint.
        command: fit, validate, test or predict.
        run: The run's folder.
        path: What `--ckpt_path` says.

    Raises:
        ValueError: If there is no checkpoint, and one is needed.
        FileNotFoundError: If the file is missing.
    """
    last = run / "checkpoints" / "last.ckpt"
    if path is None:
        if command != "fit" and not getattr(module, "has_weights", False):
            raise ValueError(
                f"ckpt_path: null; expected a checkpoint, as {command} needs trained weights: "
                f"--ckpt_path {last}, or whichever"
            )
    elif path == "last":
        if command != "fit" and not last.is_file():
            raise FileNotFoundError(
                f"ckpt_path: last; expected {last}, there is none (a path finds another run's)"
            )
    elif path == "hpc":
        if not any(run.glob("hpc_ckpt_*.ckpt")):
            raise FileNotFoundError(
                f"ckpt_path: hpc; expected {run}/hpc_ckpt_N.ckpt, there is none"
            )
    elif not Path(path).is_file():
        raise FileNotFoundError(f"ckpt_path: {path}; expected a checkpoint file, or last")


def check_start(module: Any, path: str | None) -> None:
    """Makes the optimizer once, and looks for the weights that training starts from.

    Args:
        module: A `Trainable`.
        path: What `--ckpt_path` says.

    Raises:
        ValueError: If the optimizer or the schedule refuses its options.
        FileNotFoundError: If there are no such weights.
    """
    start = module.start
    if path is None and start is not None and not Path(start).expanduser().is_file():
        raise FileNotFoundError(f"model.start: {start}; expected a file of weights, there is none")
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        if re.match(r"[\w.]+: .*expected", str(error)):
            raise
        raise ValueError(f"model.optimizer: {error}; expected options that it takes") from error


def check_forgetting(network: Network, p_uncond: float | Sequence[Forget]) -> None:
    """Refuses to forget what the network has no ∅ for.

    Raises:
        ValueError: If a probability is out of its range, or a condition has no ∅.
    """
    key = "model.p_uncond"
    if isinstance(p_uncond, int | float):
        if not 0 <= p_uncond <= 1:
            raise ValueError(f"{key}: {p_uncond}; expected 0 … 1")
        lacking = set(network.conditions or ()).difference(network.required, network.null)
        if p_uncond and lacking:
            raise ValueError(
                f"{key}: {p_uncond}; expected 0, as the network has no ∅ for {min(lacking)} "
                "(null_class: true gives it one)"
            )
        return
    for row in p_uncond:
        if not 0 <= row.p <= 1:
            raise ValueError(f"{key}.p: {row.p}; expected 0 … 1")
        unknown = [name for name in row.keys if not named_after(name, network.null)]
        if unknown or not row.keys:
            raise ValueError(
                f"{key}.keys: {unknown}; expected some conditions with a ∅, of {list(network.null)}"
            )
    if (total := sum(row.p for row in p_uncond if row.exclusive)) > 1 + 1e-9:
        raise ValueError(f"{key}: {total} for all exclusive rows; expected at most 1")


def forgotten(network: Network, p_uncond: Any) -> set[str]:
    """Returns the conditions that training forgets now and then.

    Args:
        network: The network.
        p_uncond: What training was told, as an object or as a checkpoint has it.
    """
    if isinstance(p_uncond, int | float):
        return set(network.null) if p_uncond else set()
    rows = [row if isinstance(row, Forget) else Forget(**row) for row in p_uncond]
    names = [name for row in rows if row.p for name in row.keys]
    return {key for name in names for key in named_after(name, network.null)}


def check_forgotten(sampler: Sampler, trained: Mapping[str, Any], network: Network) -> None:
    """Refuses to draw with ∅ what was not trained with it, or has none.

    Args:
        sampler: What draws.
        trained: The settings of the training, with `p_uncond`; `start` if it began with the
            weights of another model, of which nothing is known.
        network: What was trained.

    Raises:
        ValueError: If a guidance asks for it.
    """
    for guide in sampler.guidance:
        kind, wanted = type(guide).__name__, guide.forgets(network.null)
        p_uncond = trained.get("p_uncond")
        if p_uncond is None or trained.get("start") is not None:
            continue
        if never := [key for key in wanted if key not in forgotten(network, p_uncond)]:
            raise ValueError(
                f"model.p_uncond: {p_uncond}; expected above 0 in training, as {kind} draws with "
                f"∅ for {never[0]}, which was never trained (scale 1 does without)"
            )


def settings_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings that a checkpoint was trained with; {} if it was imported."""
    found = checkpoint.get("hyper_parameters") if checkpoint.get("global_step") else None
    return found if isinstance(found, Mapping) else {}


PRECISIONS = ("64", "64-true", "16-true", "bf16-true")


def check_precision(precision: str | int | None) -> None:
    """Refuses to hold weights, tables and averages in another precision than float32.

    Raises:
        ValueError: If it is one of the Trainer's others.
    """
    if str(precision) in PRECISIONS or str(precision).startswith("transformer-engine"):
        raise ValueError(
            f"trainer.precision: {precision}; expected 32-true, bf16-mixed or 16-mixed, as weights "
            "and their averages stay in float32"
        )


def check_stage(trainer: Any, data: Any, stage: str) -> None:
    """Refuses a precision, and to measure on nothing; training without validation says so.

    Args:
        trainer: Lightning's.
        data: The data module, set up, or None.
        stage: "fit", "validate", "test" or "predict".

    Raises:
        ValueError: If nothing can come of it.
    """
    check_precision(trainer.precision)
    split = {"fit": "val", "validate": "val", "test": "test"}.get(stage)
    if split is None:
        return
    pictures = getattr(data, f"{split}_set", None)
    if getattr(trainer, f"limit_{split}_batches") == 0:
        why = f"trainer.limit_{split}_batches is 0"
    elif isinstance(pictures, Sized) and len(pictures) == 0:
        share = " (data.val_share)" if hasattr(data, "val_share") else ""
        why = f"the split '{split}' of {type(data).__name__} is empty{share}"
    else:
        return
    if stage != "fit":
        command = {"val": "validate", "test": "test"}[split]
        raise ValueError(f"{command}: nothing to {command}, {why}; expected at least one batch")
    rank_zero_info(f"Nothing will be validated: {why}")


def check_variance(network: Network, parts: Mapping[str, Objective | Step]) -> None:
    """Refuses a learned variance where the network is known not to put one out.

    Args:
        network: What is trained.
        parts: What may want it, by its key.

    Raises:
        ValueError: If one of them wants it to be learned.
    """
    channels, out = network.in_channels, network.out_channels
    for key, part in parts.items():
        if part.variance == "learned" and channels and out != 2 * channels:
            raise ValueError(
                f"{key}: {type(part).__name__} uses a learned variance; expected "
                f"model.network.out_channels {2 * channels}, it is {out}"
            )


def check_given(stages: Sequence[Any], data: Any) -> None:
    """Refuses to continue from pictures that are not there, and pictures that nothing looks at.

    Args:
        stages: The `Diffusion` modules that draw, one after the other.
        data: The data module.

    Raises:
        ValueError: If what a sampler needs is not in the data's requests, or the other way round.
    """
    needs = frozenset[str]().union(*(stage.sampler.needs for stage in stages))
    read = needs.union(*(stage.denoiser.conditions or () for stage in stages))
    strength = min(stage.sampler.strength for stage in stages)
    if missing := {"known", "mask"} & needs:
        missing -= set(data.on_after_batch_transfer(data.request([0]), 0))
    why = "for Inpaint" if strength == 1 else f"as sampler.strength is {strength}"
    if "known" in missing:
        raise ValueError(f"data.edit: null; expected a picture or a folder of pictures, {why}")
    if "mask" in missing:
        raise ValueError("data.mask: null; expected a picture or x0,y0,x1,y1 for Inpaint")
    edit, mask = getattr(data, "edit", None), getattr(data, "mask", None)
    if mask is not None and "mask" not in read:
        raise ValueError(
            f"data.mask: {mask!r}; expected null, or Inpaint in sampler.guidance, or an Inpainter "
            "network, as nothing looks at it"
        )
    if edit is not None and mask is None and strength == 1:
        also = "what to repaint in data.mask, or " if "mask" in read else ""
        raise ValueError(f"data.edit: {edit!r}; expected {also}sampler.strength below 1")


def check_classifier(network: Network, process: Process, spec: DataSpec, crop: int) -> None:
    """Compares a classifier with the data: the classes, the size of the images.

    Args:
        network: The classifier.
        process: Its forward process.
        spec: The data.
        crop: How far training images are moved, in pixels.

    Raises:
        ValueError: If they do not fit.
    """
    if not spec.num_classes:
        raise ValueError(
            f"data: {spec.name} has no labels; expected data with classes to tell apart"
        )
    network.check(spec, process.T)
    if network.num_classes != spec.num_classes:
        raise ValueError(
            f"model.network.num_classes: {network.num_classes}; expected the {spec.num_classes} "
            f"classes of {spec.name}"
        )
    check_crop(crop, spec)


def check_crop(crop: int, spec: DataSpec) -> None:
    """Refuses to move images out of sight.

    Raises:
        ValueError: If they are moved by more pixels than they have.
    """
    if crop and (len(spec.shape) != 3 or crop >= min(spec.shape[1:])):
        raise ValueError(
            f"model.crop: {crop}; expected less than the sides of the images, {spec.shape} here"
        )


def check_checkpoint(module: nn.Module, path: Path, training: bool = False) -> None:
    """Compares a checkpoint's tensors with the model's, which hears what it was trained on.

    Args:
        module: The model.
        path: The file.
        training: Whether it will be trained on, which takes more than its weights.

    Raises:
        ValueError: If a tensor is missing, unexpected or of another shape, or the file is none.
    """
    content = read(path, "ckpt_path")
    saved = state(content, "ckpt_path", path)
    check_tensors(module.state_dict(), saved, f"ckpt_path: {path}", same_shape)
    module.expects = DataSpec.read(content)  # pyright: ignore[reportArgumentType]
    if training:
        check_training(content, saved, path)


def check_training(content: Mapping[str, Any], saved: Mapping[str, Tensor], path: Path) -> None:
    """Refuses a checkpoint from which training cannot go on.

    Args:
        content: What the file holds.
        saved: Its state_dict.
        path: The file.

    Raises:
        ValueError: If counters, raw weights or the optimizer's state are missing or something else.
    """
    file = f"ckpt_path: {path}"
    for key in ("epoch", "global_step"):
        if not is_count(content.get(key)):
            raise ValueError(f"{file}; expected its {key}, it has none: it cannot be trained on")
    for key, parts in {"optimizer_states": {"state", "param_groups"}, "lr_schedulers": ()}.items():
        found = content.get(key, [])  # without them, `adopt` says what else can be done
        known = isinstance(found, list) and all(
            isinstance(one, Mapping) and one.keys() >= set(parts) for one in found
        )
        if not known:
            raise ValueError(f"{file}; expected its {key}, it has something else")
    for key in ("loops", "callbacks"):
        if not isinstance(content.get(key, {}), Mapping):
            raise ValueError(f"{file}; expected its {key} by name, it has something else")
    check_counters(content.get("loops", {}), file)
    if RAW in content:
        raw = state(content, "ckpt_path", path, RAW)
        check_tensors({k: v for k, v in saved.items() if k in raw}, raw, file, same_shape)
        if not is_count(content.get(STEPS)):
            raise ValueError(f"{file}; expected its {STEPS}, it has none: it cannot be trained on")


def check_counters(loops: Any, file: str) -> None:
    """Refuses what is no nest of counters, as Lightning's loops have them.

    Raises:
        ValueError: If there is something else in it.
    """
    if isinstance(loops, Mapping):
        for value in loops.values():
            check_counters(value, file)
    elif not isinstance(loops, bool) and not is_count(loops):
        raise ValueError(f"{file}; expected counters in its loops, it has {type(loops).__name__}")


def is_count(value: Any) -> bool:
    """Whether a value can be a number of steps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def check_tensors(
    mine: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    file: str,
    fits: Callable[[str, Tensor, Tensor], bool],
) -> None:
    """Compares the tensors of a file with a model's.

    Args:
        mine: The model's, by name.
        saved: The file's.
        file: What errors call it.
        fits: Whether the tensor of a name, mine and the file's, can be copied.

    Raises:
        ValueError: If one is missing, unexpected, or does not fit.
    """
    for name in (*mine, *saved):
        here, there = mine.get(name), saved.get(name)
        if here is None or there is None or not fits(name, here, there):
            alike = here is not None and there is not None and here.shape == there.shape
            was, want = ("nothing" if x is None else _of(x, alike) for x in (there, here))
            raise ValueError(f"{file} is of another model: {name:.100} is {was}, expected {want}")


def _of(x: Tensor, alike: bool) -> str:
    return f"of {x.dtype}".replace("torch.", "") if alike else str(tuple(x.shape))


def same_shape(name: str, here: Tensor, there: Tensor) -> bool:
    """Whether both have the same shape, and both are real numbers or both are not."""
    return here.shape == there.shape and (here.is_floating_point() == there.is_floating_point())


def fingerprint(path: str | None) -> str | None:
    """Returns 16 digits that change with what a checkpoint file holds; other texts as they are."""
    if path is None or not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as records:
        sums = [(record.filename, record.CRC) for record in records.infolist()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
