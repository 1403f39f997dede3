"""The images that metrics measure: drawn by all processes, timed and counted."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import quantize
from diffusion.common.progress import bar
from diffusion.guidance import ControlStrength
from diffusion.guidance.clip import Clip
from diffusion.metrics.base import Figure, MadeBy, Measure, SampleBatch
from diffusion.metrics.captions.text_score import Scorer
from diffusion.metrics.evaluations import Evaluations, evaluation_figures
from diffusion.metrics.report.record import plain
from diffusion.networks import ControlNet
from diffusion.networks.locked import Locked
from diffusion.networks.towers import independent_parts
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.spec import Batch
from diffusion.systems.generative import Generative
from diffusion.systems.trainer import data_of, gather_rows

FIRST = 512  # images that stay, to be shown


def generate(
    trainer: L.Trainer, module: Any, n: int, batch_size: int, measures: Sequence[Measure]
) -> tuple[dict[str, Figure], SampleBatch]:
    """Draws n images for measures; returns what an image costs, and the first images.

    Sample i has noise seed i; what it is asked to be, a label or a caption, the data's `measured`
    says by its number i.

    Args:
        trainer: Whose data module says what is asked for.
        module: A `Generative`.
        n: Number of images of all processes.
        batch_size: Images generated at once by one process.
        measures: Each process updates them with its own images.
    """
    data, rank, world = data_of(trainer), trainer.global_rank, trainer.world_size
    rounds = sample_numbers(n, batch_size, rank, world)
    drawn, seconds, shown = sum(map(len, rounds)), 0.0, list[tuple[Tensor, Tensor]]()
    counters = {name: Evaluations() for name in module.networks()}
    with bar("images", draws_bars(trainer)) as progress, ExitStack() as counting:
        for name, networks in module.networks().items():
            for network in networks:
                counting.enter_context(counters[name].counting(network))
        task = progress.add_task("Generating", total=n)
        for numbers in rounds:
            start = time.perf_counter()
            requests = data.measured(numbers)
            batch = data.on_after_batch_transfer(move_data_to_device(requests, module.device), 0)
            images = quantize(module.generate(batch, numbers))
            images.cpu()  # waits for the device, so that the time is the images'
            seconds += time.perf_counter() - start
            own = sum(i % world == rank for i in numbers)  # the others repeat the last
            index = torch.tensor(numbers)
            samples = SampleBatch(images[:own], index[:own], **_requested(module, data, batch, own))
            for measure in measures if own else ():
                measure.update(samples)
            first = sum(number < FIRST for number in numbers[:own])
            shown.append((index[:first].to(images.device), images[:first]))
            progress.advance(task, min(len(numbers) * world, n))
            progress.refresh()  # beneath the trainer's own bar it is not redrawn by itself
    index, images = (gather_rows(trainer.strategy, torch.cat(x)) for x in zip(*shown))
    asked = _requested(module, data, data.measured(range(len(images))), len(images))
    made = SampleBatch(images[index.argsort()], **asked)
    evaluations = {name: counter.rows / drawn for name, counter in counters.items()}
    return evaluation_figures(evaluations, seconds / drawn), made


def _requested(module: Any, data: Any, batch: Batch, n: int) -> dict[str, Any]:
    """Returns what the first n samples of a batch are asked to be, as `SampleBatch` has it."""
    # A label is asked for by itself, or with the caption of a picture that has it.
    labelled = module.reads_anything if "text" in batch else module.reads_labels
    found = {"labels": batch.get("label") if labelled else None, "texts": batch.get("text")}
    found |= {"identities": batch.get("identity"), "persons": batch.get("person")}
    found = {key: None if value is None else value[:n] for key, value in found.items()}
    return found | {"controls": {k: batch[k][:n] for k in data.controls if k in batch} or None}


def sample_numbers(n: int, batch_size: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Returns this process's batches of sample numbers out of 0 … n − 1.

    Sample i goes to process i mod world. All processes get as many batches, of the same sizes, so
    that they evaluate a network together; one without a sample of its own repeats the last.

    Args:
        n: Number of samples of all processes.
        batch_size: Most samples of a process's batch.
        rank: This process.
        world: Number of processes.
    """
    most = -(-n // world)
    mine = [min(i * world + rank, n - 1) for i in range(most)]
    return [mine[i : i + batch_size] for i in range(0, most, batch_size)]


def stages(module: Any) -> list[dict[str, Any]]:
    """Returns the settings of what draws, one after the other."""
    settings = module.settings()
    return settings.get("stages", [settings])


def digests(module: Any) -> list[str]:
    """Returns a digest of the weights of the network of each that draws, if it has one."""
    networks = [stage["network"] for stage in stages(module) if "network" in stage]
    return [weights_digest(network.state_dict()) for network in networks]


def guides(module: Any) -> list[Any]:
    """Returns the guidance of all stages."""
    samplers = [stage["sampler"] for stage in stages(module) if "sampler" in stage]
    return [guide for sampler in samplers for guide in sampler.guidance]


def made_by(module: L.LightningModule) -> MadeBy:
    """Returns what a module draws by, so that no judge is part of it.

    Args:
        module: A `Generative`.
    """
    assert isinstance(module, Generative)
    locked = [x.mark.removeprefix("base_") for x in module.modules() if isinstance(x, Locked)]
    scorers = [guide.scorer for guide in guides(module) if isinstance(guide, Clip)]
    guiding = [scorer.fingerprint for scorer in scorers if isinstance(scorer, Scorer)]
    networks = chain.from_iterable(module.networks().values())
    return MadeBy(locked, guiding, set[str]().union(*map(independent_parts, networks)))


def by_stage(module: Any, describe: Callable[..., Any]) -> Any:
    """Returns a description of what draws; {"stages": one of each} if several do, in turn."""
    found = [describe(**stage) for stage in stages(module)]
    return {"stages": found} if len(found) > 1 else found[0]


def sampling(
    sampler: Sampler | None = None, process: Process | None = None, **_rest: Any
) -> dict[str, Any] | None:
    """Returns how a stage draws; None if it does not say."""
    return sampler and {
        "step": plain(sampler.step),
        "steps": sampler.steps or (process and process.T),
        "spacing": sampler.spacing,
        "guidance": [plain(guide) for guide in sampler.guidance],
    }


@contextmanager
def without_controls(module: Any) -> Iterator[bool]:
    """Has what draws draw at strength 0 of all its controls, as its base; whether it has any."""
    before = list[tuple[Sampler, Sequence[Any]]]()
    for stage in stages(module):
        network, sampler = stage.get("network"), stage.get("sampler")
        if isinstance(network, ControlNet) and sampler:
            before.append((sampler, sampler.guidance))
            others = (x for x in sampler.guidance if not isinstance(x, ControlStrength))
            sampler.guidance = [*others, *(ControlStrength(x.name, 0.0) for x in network.maps)]
    try:
        yield bool(before)
    finally:
        for sampler, guidance in before:
            sampler.guidance = guidance


def draws_bars(trainer: L.Trainer) -> bool:
    """Whether this process draws progress bars."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
