"""The flags of commands with a trainer: sections for callbacks, and some of this project's own."""

from argparse import SUPPRESS
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_warn

# Imported so that YAML can name their classes without their modules.
import diffusion.candidates
import diffusion.codec
import diffusion.common.muon
import diffusion.common.schedules
import diffusion.data
import diffusion.guidance
import diffusion.metrics
import diffusion.networks
import diffusion.objective
import diffusion.parameterization
import diffusion.process
import diffusion.step
import diffusion.systems.captioning.captioner
import diffusion.systems.captioning.trained_tower
import diffusion.systems.cascade
import diffusion.systems.contrastive
import diffusion.systems.diffusion
import diffusion.systems.embeddings.clip_image
import diffusion.systems.embeddings.clip_text
import diffusion.systems.embeddings.person_embedding
import diffusion.systems.frozen
import diffusion.systems.identity.identity_encoder
import diffusion.systems.noisy_classifier
import diffusion.systems.swapping.swapper
from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.likelihood import Likelihood
from diffusion.callbacks.metrics import Metrics
from diffusion.callbacks.monitor import Monitor
from diffusion.callbacks.samples import SamplePictures
from diffusion.callbacks.writer import Writer
from diffusion.cli.runs.loggers import Wandb
from diffusion.data.requests.prompts import plain_text, prompts_of
from diffusion.networks.compiled import compile_in_place
from diffusion.systems import trainer
from diffusion.systems.averages import EMA, Snapshots
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.generative import Generative

SECTIONS = {
    "checkpoint": Checkpoint,
    "ema": EMA,
    "likelihood": Likelihood,
    "metrics": Metrics,
    "monitor": Monitor,
    "samples": SamplePictures,
    "snapshots": Snapshots,
    "writer": Writer,
}
TRAINER = {**trainer.DEFAULTS, "default_root_dir": "runs/default"}
UPSAMPLER = "weights/prompt_upsampler_emoji"
TEXTS: Any = list[str] | str | None
FLAGS: dict[str, dict[str, Any]] = {
    "--wandb": {
        "type": Wandb,
        "default": "offline",
        "help": "Whether to log to Weights & Biases too, and whether over the network.",
    },
    "--compile": {
        "type": bool,
        "default": False,
        "help": "Whether to compile the networks that denoise, which takes a while at first.",
    },
    "--tf32": {
        "type": bool,
        "default": True,
        "help": "Whether a GPU may round float32 factors to TensorFloat-32, ten bits, to be fast.",
    },
    "--prompt": {
        "type": TEXTS,
        "help": "A text to draw, such as 'a google emoji of a red fox', for data with captions; "
        "repeat it for several texts.",
    },
    "--prompts": {
        "type": TEXTS,
        "help": "A file with a text to draw on each line; repeat it for several files.",
    },
    "--upsample_prompt": {
        "type": bool | str,
        "default": False,
        "help": "Make detailed captions of the prompts first: true, or the checkpoint of a "
        "PromptUpsampler.",
    },
    "--trust": {
        "action": "store_true",
        "default": SUPPRESS,  # of one command, so that no configuration has it
        "help": "Take all of a checkpoint's configuration, for a file that you made yourself.",
    },
}


def add(parser: LightningArgumentParser) -> None:
    """Adds the sections and the flags to a parser."""
    for section, callback in SECTIONS.items():
        parser.add_lightning_class_args(callback, section)
    for flag, options in FLAGS.items():
        parser.add_argument(flag, **options)
    parser.set_defaults({"model": {"class_path": "diffusion.systems.diffusion.Diffusion"}})
    run, checkpoints = "trainer.default_root_dir", "checkpoint.dirpath"
    parser.link_arguments(run, checkpoints, lambda folder: f"{folder}/checkpoints")


def allow_tf32(allowed: bool) -> None:
    """Lets a GPU multiply and convolve in TensorFloat-32, or not, for --tf32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def compile_networks(model: Any) -> None:
    """Compiles the networks that denoise, for --compile.

    Raises:
        ValueError: If the model draws no samples.
    """
    if not isinstance(model, Generative):
        raise ValueError(f"compile: true; expected false, as {type(model).__name__} draws nothing")
    for network in model.networks()["nfe"]:
        compile_in_place(network)


def hand_on_prompts(config: Any) -> None:
    """Gives the data the texts of --prompt and --prompts, made longer if asked to.

    Of empty ones, which are drawn without a text, one line warns.

    Raises:
        ValueError: If there is nothing to make longer, or the data has no captions.
    """
    prompts = prompts_of(config.prompt, config.prompts)
    if config.upsample_prompt:
        prompts = prompts or config.data.init_args.get("prompts")
        if not prompts:
            given = str(config.upsample_prompt).lower()
            raise ValueError(f"upsample_prompt: {given}; expected --prompt too, a text to rewrite")
        short, prompts = prompts, rewritten(config.upsample_prompt, prompts)
        config.writer.upsampled = dict(zip(prompts, short))
    if prompts is None:
        return
    if "prompts" not in config.data.init_args:
        name = config.data.class_path.rsplit(".", 1)[-1]
        raise ValueError(
            f"prompt: {prompts[0]!r}; expected data with captions, such as Emoji or ImageText, "
            f"{name} has none"
        )
    if empty := sum(not plain_text(text) for text in prompts):
        rank_zero_warn(f"prompt: {empty} of {len(prompts)} empty; drawn without a text, as ∅")
    config.data.init_args["prompts"] = prompts


def rewritten(by: bool | str, prompts: list[str]) -> list[str]:
    """Returns detailed captions of prompts.

    Args:
        by: The checkpoint of a `PromptUpsampler`, or True for that of `weights`.
        prompts: Some texts.
    """
    path = UPSAMPLER if by is True else str(by)
    model = PromptUpsampler.load_from_checkpoint(path, key="upsample_prompt").eval()
    return model.rewrite(prompts)
