"""`diffusion fit|validate|test|predict --config configs/….yaml [--config …] [--key value …]`."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

# Imported so that YAML can name these classes without their modules.
import diffusion.data
import diffusion.guidance
import diffusion.importance
import diffusion.metrics
import diffusion.networks
import diffusion.objective
import diffusion.parameterization
import diffusion.process
import diffusion.step
import diffusion.training.cascade
import diffusion.training.classifier
import diffusion.training.contrastive
import diffusion.training.module
import diffusion.training.schedule
import diffusion.training.trained
import diffusion.training.trained_clip  # noqa: F401
from diffusion.files import reason
from diffusion.training import checks, commands, latest, loggers, texts
from diffusion.training.callbacks.checkpoint import Checkpoint
from diffusion.training.callbacks.config import SaveConfig
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.likelihood import Likelihood
from diffusion.training.callbacks.metrics import Metrics
from diffusion.training.callbacks.monitor import Monitor, NotFinite
from diffusion.training.callbacks.samples import Samples
from diffusion.training.callbacks.writer import Writer
from diffusion.training.claim import check_room, claim
from diffusion.training.ending import ending
from diffusion.training.layers import from_checkpoint
from diffusion.training.messages import one_line

SECTIONS = {
    "checkpoint": Checkpoint,
    "ema": EMA,
    "likelihood": Likelihood,
    "metrics": Metrics,
    "monitor": Monitor,
    "samples": Samples,
    "writer": Writer,
}
TRAINER = {
    "check_val_every_n_epoch": None,
    "default_root_dir": "runs/default",
    "inference_mode": False,  # guidance may need gradients while sampling
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data modules deal their batches themselves
    "val_check_interval": 1000,
}
ERRORS = (ValueError, OSError, MisconfigurationException, NotFinite)
HELP = ([], ["-h"], ["--help"])
TRACEBACK = "DIFFUSION_TRACEBACK"


class Parser(LightningArgumentParser):
    """A parser whose errors are one line that names what would have been right."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with code 2."""
        if not self.exit_on_error or os.environ.get(TRACEBACK):
            super().error(message, ex)
        fail(one_line(message, names(self)))


class CLI(LightningCLI):
    """Lightning's command line, with a section of the YAML for each of this project's callbacks."""

    def __init__(self, *args: Any, only: str | None = None, **kwargs: Any) -> None:
        self.only = only  # the subcommand asked for; the parsers of the others take time to build
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The subcommands to build parsers for."""
        every = LightningCLI.subcommands()
        return {self.only: every[self.only]} if self.only in every else every

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the sections, and the flag for Weights & Biases."""
        for section, callback in SECTIONS.items():
            parser.add_lightning_class_args(callback, section)
        parser.add_argument(
            "--wandb",
            type=Literal["off", "offline", "online"],
            default="offline",
            help="Whether to log to Weights & Biases too, and whether over the network.",
        )
        parser.add_argument(
            "--prompt",
            type=str | None,
            help="A text to draw, such as 'a google emoji of a red fox'; for data with captions.",
        )
        parser.add_argument(
            "--prompts", type=str | None, help="A file with a text to draw on each line."
        )
        parser.set_defaults({"model": {"class_path": "diffusion.training.module.Diffusion"}})
        parser.link_arguments(
            "trainer.default_root_dir", "checkpoint.dirpath", lambda run: f"{run}/checkpoints"
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's configuration is the first layer, under what the user says."""

    def before_instantiate_classes(self) -> None:
        """Finds the checkpoint, and hands the prompts to the data module."""
        command, config = str(self.subcommand), self.config[str(self.subcommand)]
        run = Path(config.trainer.default_root_dir)
        config.ckpt_path = latest.resolve(config.ckpt_path, run, command)
        prompts = texts.asked(config.prompt, config.prompts)
        if prompts is None:
            return
        if "prompts" not in config.data.init_args:
            name = config.data.class_path.rsplit(".", 1)[-1]
            raise ValueError(
                f"prompt: {prompts[0]!r}; expected data with captions, such as Emoji or ImageText, "
                f"{name} has none"
            )
        config.data.init_args["prompts"] = prompts

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Claims the run's folder, and adds loggers where the YAML has none of its own."""
        command, config = str(self.subcommand), self.config[str(self.subcommand)]
        run = Path(config.trainer.default_root_dir)
        if command != "fit" or not config.trainer.fast_dev_run:
            claim(run, command, resuming=config.ckpt_path is not None)
        if config.trainer.logger in (None, True) and not config.trainer.fast_dev_run:
            kwargs["logger"] = loggers.make(run, config.wandb, command)
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Checks what can be known to fail."""
        command = str(self.subcommand)
        config = self.config[command]
        path = config.ckpt_path
        if command == "fit" and not config.trainer.fast_dev_run:
            check_room(Path(config.trainer.default_root_dir), self.model)
        if path and Path(path).is_file():
            checks.check_checkpoint(self.model, Path(path))
        writer = next(c for c in self.trainer.callbacks if isinstance(c, Writer))  # pyright: ignore
        writer.settings = {
            "checkpoint": checks.fingerprint(path),
            "labels": getattr(self.datamodule, "labels", None),
            "prompts": getattr(self.datamodule, "prompts", None),
            "model": str(config.model.init_args.get("sampler")),
            "seed": config.seed_everything,
        }
        if given := getattr(self.datamodule, "given", None):
            writer.settings["given"] = given.digest()


def names(parser: LightningArgumentParser) -> list[str]:
    """Returns the keys that a parser and its subcommands know."""
    actions = getattr(parser._subcommands_action, "choices", None) or {}
    parsers = [parser, *actions.values()]
    return [str(action.dest) for p in parsers for action in p._actions]


def fail(message: str) -> NoReturn:
    """Prints one line and ends the program with code 2."""
    sys.stderr.write(f"diffusion: error: {message}\n")
    raise SystemExit(2)


def quiet() -> None:
    """Leaves out what Lightning says that nobody here can act on."""
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    advice = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advice.addFilter(lambda record: "litlogger" not in record.getMessage())


@ending
def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line; errors that the user can mend are one line.

    With the environment variable DIFFUSION_TRACEBACK=1 they show where they come from, too.

    Args:
        args: What follows the program's name; by default the process's own.
    """
    args = sys.argv[1:] if args is None else args
    quiet()
    torch.set_float32_matmul_precision("high")
    try:
        if args and args[0] in commands.COMMANDS:
            return commands.run(args[0], args[1:], Parser)
        with from_checkpoint(args) as layered:
            CLI(
                L.LightningModule,
                L.LightningDataModule,
                args=layered,
                only=layered[0] if layered else None,
                parser_class=Parser,
                parser_kwargs={"epilog": commands.listed()} if layered[:1] in HELP else None,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                subclass_mode_data=True,
                subclass_mode_model=True,
                trainer_defaults=TRAINER,
                auto_configure_optimizers=False,
            )
    except ERRORS as error:
        if os.environ.get(TRACEBACK):
            raise
        began = any(f.name == "_run_stage" for f in traceback.extract_tb(error.__traceback__))
        text = reason(error) if isinstance(error, OSError) else str(error)
        fail(one_line(text) + (f" ({TRACEBACK}=1 shows where)" if began else ""))
