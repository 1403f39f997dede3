"""The images that metrics measure: drawn by all processes, gathered, timed and counted."""

import time
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.common.progress import bar
from diffusion.data.requests.base import in_order
from diffusion.metrics.evaluations import Evaluations
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.generated import Generated, deal
from diffusion.metrics.report.record import plain
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.systems import distributed


def generate(
    trainer: L.Trainer, module: Any, n: int, batch_size: int, extractor: Extractor | None
) -> Generated:
    """Returns n images, on every process; sample i has noise seed i.

    What it is asked to be, a label or a caption, the data's `measured` says by its number i. They
    are kept as bytes: n · C · H · W of them on every process, 0.6 GB for 50,000 of 3 × 64 × 64.

    Args:
        trainer: Whose data module says what is asked for.
        module: A `Generative`.
        n: Number of images of all processes.
        batch_size: Images generated at once by one process.
        extractor: Whose features and logits are taken, or None.
    """
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    asked, seconds, stored = False, 0.0, {}
    rounds = deal(n, batch_size, trainer.global_rank, trainer.world_size)
    drawn, counted = sum(map(len, rounds)), module.networks()
    counters = {name: Evaluations() for name in counted}
    with bar("images", draws(trainer)) as progress, ExitStack() as counting:
        for name, parts in counted.items():
            for network in parts:
                counting.enter_context(counters[name].counting(network))
        task = progress.add_task("Generating", total=n)
        for mine in rounds:
            start = time.perf_counter()
            batch = move_data_to_device(data.measured(mine), module.device)
            # A label is asked for by itself, or with the caption of a picture that has it.
            asked = module.reads_anything if "text" in batch else module.reads_labels
            images = quantize(module.generate(data.on_after_batch_transfer(batch, 0), mine))
            images.cpu()  # waits for the device, so that the time is the images'
            seconds += time.perf_counter() - start
            found = (
                {} if extractor is None else dict(zip(("features", "logits"), extractor(images)))
            )
            index = _store(trainer, stored, n, mine, {"images": images, **found})
            progress.advance(task, len(index))
            progress.refresh()  # beneath the trainer's own bar it is not redrawn by itself
    labels, texts = _asked(data, n, batch_size)
    return Generated(
        images=stored["images"],
        labels=labels if asked else None,
        features=stored.get("features"),
        logits=stored.get("logits"),
        seconds=seconds / drawn,
        evaluations={name: counter.rows / drawn for name, counter in counters.items()},
        texts=texts,
    )


def _asked(data: Any, n: int, batch_size: int) -> tuple[Tensor | None, list[str] | None]:
    """Returns the labels and texts of n samples; pictures that come with them are not kept."""
    labels: list[Tensor] = []
    texts: list[str] = []
    for numbers in in_order(n, batch_size):
        batch = data.measured(numbers)
        labels += [batch["label"]] if "label" in batch else []
        texts += batch.get("text", [])
    return torch.cat(labels) if labels else None, texts or None


def stages(module: Any) -> list[dict[str, Any]]:
    """Returns the settings of what draws, one after the other."""
    settings = module.settings()
    return settings.get("stages", [settings])


def guides(module: Any) -> list[Any]:
    """Returns the guidance of all stages."""
    samplers = [stage["sampler"] for stage in stages(module) if "sampler" in stage]
    return [guide for sampler in samplers for guide in sampler.guidance]


def sampling(module: Any) -> dict[str, Any] | None:
    """Returns how the images were drawn, by {"stages": …} if in several; None if it is not said."""
    found = [_sampling(**stage) for stage in stages(module)]
    return {"stages": found} if len(found) > 1 else found[0]


def _sampling(
    sampler: Sampler | None = None, process: Process | None = None, **_rest: Any
) -> dict[str, Any] | None:
    if sampler is None:
        return None
    return {
        "step": plain(sampler.step),
        "steps": sampler.steps or (process and process.T),
        "spacing": sampler.spacing,
        "guidance": [plain(guide) for guide in sampler.guidance],
    }


def draws(trainer: L.Trainer) -> bool:
    """Whether this process draws progress bars."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None


def _store(
    trainer: L.Trainer, stored: dict[str, Tensor], n: int, mine: list[int], rows: dict[str, Tensor]
) -> Tensor:
    """Puts all processes' rows at their numbers, which are returned."""
    strategy = trainer.strategy
    index = distributed.rows(strategy, torch.tensor(mine, device=rows["images"].device))
    for key, value in rows.items():
        value = distributed.rows(strategy, value)
        if key not in stored:
            stored[key] = value.new_empty(n, *value.shape[1:])
        stored[key][index] = value
    return index
