"""`diffusion fit|validate|test|predict --config configs/….yaml [--config …] [--key value …]`."""

import logging
import os
import re
import sys
import traceback
import warnings
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

# Imported so that YAML can name these classes without their modules.
from diffusion.callbacks.bar import Bar
from diffusion.callbacks.checkpoint import Checkpoint
from diffusion.callbacks.likelihood import Likelihood
from diffusion.callbacks.metrics import Metrics
from diffusion.callbacks.monitor import Monitor, NotFinite
from diffusion.callbacks.pulse import Pulse
from diffusion.callbacks.samples import Samples
from diffusion.callbacks.save_config import SaveConfig
from diffusion.callbacks.summary import Summary, at_the_end
from diffusion.callbacks.writer import Writer
from diffusion.cli import arguments, loggers, unique_keys
from diffusion.cli.checkpoint_config import checkpoint_path, from_checkpoint
from diffusion.cli.ending import ending
from diffusion.cli.errors import one_line
from diffusion.cli.parser import TRACEBACK, OneLine, fail
from diffusion.cli.run_folder import check_room, claim
from diffusion.common.files import reason
from diffusion.data.base import Images
from diffusion.data.reading.workers import lost
from diffusion.data.requests.prompts import prompts_of
from diffusion.systems import checks
from diffusion.systems.averages import EMA
from diffusion.systems.base import System, check_precision
from diffusion.systems.checkpoints import latest
from diffusion.systems.checkpoints.contents import check_checkpoint

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
    "enable_model_summary": False,  # Summary says it in one line
    "inference_mode": False,  # guidance may need gradients while sampling
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data modules deal their batches themselves
    "val_check_interval": 1000,
}
ERRORS = (ValueError, OSError, MisconfigurationException, NotFinite)


class Parser(OneLine, LightningArgumentParser):
    """Lightning's parser, whose errors are one line that names what would have been right."""


class CLI(LightningCLI):
    """Lightning's command line, with a section of the YAML for each of this project's callbacks."""

    def __init__(
        self, *args: Any, only: str | None = None, typed: Sequence[str] = (), **kwargs: Any
    ) -> None:
        self.only = only  # the subcommand asked for; the parsers of the others take time to build
        self.typed = typed  # what follows the program's name
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
            type=list[str] | str | None,
            help="A text to draw, such as 'a google emoji of a red fox', for data with captions; "
            "repeat it for several texts.",
        )
        parser.add_argument(
            "--prompts",
            type=list[str] | str | None,
            help="A file with a text to draw on each line; repeat it for several files.",
        )
        parser.add_argument(
            "--trust",
            action="store_true",
            default=SUPPRESS,  # of one command, so that no configuration has it
            help="Take all of a checkpoint's configuration, for a file that you made yourself.",
        )
        parser.set_defaults({"model": {"class_path": "diffusion.systems.diffusion.Diffusion"}})
        parser.link_arguments(
            "trainer.default_root_dir", "checkpoint.dirpath", lambda run: f"{run}/checkpoints"
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's configuration is the first layer, under what the user says."""

    def _set_seed(self) -> None:
        """Refuses a seed that NumPy would."""
        seed = self.config[str(self.subcommand)].seed_everything
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed_everything: {seed}; expected 0 .. {2**32 - 1}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Checks the trainer's options, finds the checkpoint, and hands on the prompts.

        Samples that are written are not kept.
        """
        command, config = str(self.subcommand), self.config[str(self.subcommand)]
        checks.check_trainer(config.trainer)
        check_precision(config.trainer.precision)
        said, run = config.ckpt_path, Path(config.trainer.default_root_dir)
        found = latest.resolve(said, run, command)
        config.ckpt_path = said if found is None and command != "fit" else found
        if "return_predictions" in config and config.return_predictions is None:
            config.return_predictions = False
        prompts = prompts_of(config.prompt, config.prompts)
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
        """Claims the run's folder once there are weights, and adds loggers if it has none."""
        config = self.config[str(self.subcommand)]
        command, run = str(self.subcommand), Path(config.trainer.default_root_dir)
        latest.check_weights(self.model, command, run, config.ckpt_path)
        if command == "fit" and isinstance(self.model, System):
            self.model.check_start(config.ckpt_path)
        if command != "fit" or not config.trainer.fast_dev_run:
            claim(run, command, resuming=config.ckpt_path is not None)
        if config.trainer.logger in (None, True) and not config.trainer.fast_dev_run:
            kwargs["logger"] = loggers.make(run, config.wandb, command)
        given = self.config_init[command].trainer.callbacks or []
        callbacks = [*given] if isinstance(given, list) else [given]
        self.summary, self.pulse = Summary(), Pulse()
        callbacks += [self.summary, self.pulse]
        if config.trainer.enable_progress_bar is not False and not config.trainer.barebones:
            bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
            callbacks += [] if bars else [Bar()]
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise ValueError(blamed(config.trainer, str(error))) from error

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Lightning's table of figures is not printed: `at_the_end` prints one."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return {**kwargs, "verbose": False} if "verbose" in kwargs else kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        """Says at the end where everything is, also after Ctrl-C or an error."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            self.pulse.ended()
            workers = self.datamodule.num_workers if isinstance(self.datamodule, Images) else 0
            if line := lost(error, workers):
                raise ValueError(line) from error
            raise
        finally:
            if self.summary.began and self.trainer.is_global_zero:
                figures = bool(self.config[subcommand].get("verbose", False))
                at_the_end(self.trainer, self.typed, figures)

    def after_instantiate_classes(self) -> None:
        """Checks what can be known to fail."""
        command = str(self.subcommand)
        config = self.config[command]
        path = config.ckpt_path
        if command == "fit" and not config.trainer.fast_dev_run:
            check_room(Path(config.trainer.default_root_dir), self.model)
        if path and Path(path).is_file():
            check_checkpoint(self.model, Path(path), training=command == "fit")


def blamed(options: Mapping[str, Any], message: str) -> str:
    """Returns what Lightning has against an option of the trainer, behind the option's name."""
    given = {key: value for key, value in options.items() if value is not None}
    said = [key for key in given if re.search(rf"`{key}`|\b{key}=", message)]
    named = [key for key in given if re.search(rf"\b{key}\b", message)]
    valued = [k for k, v in given.items() if isinstance(v, str) and v and v in message]
    for key in [*said, *named, *valued]:
        return f"trainer.{key}: {given[key]}; expected otherwise: {message}"
    return message


def no_key_twice() -> None:
    """Lets the parser's reader of YAML refuse a mapping with a key twice, wherever it stands."""
    read = get_loader("yaml")

    def load(text: str) -> Any:
        try:
            return read(unique_keys.checked(text))
        except unique_keys.Twice as error:
            fail(f"{unique_keys.problem(error)} of {text.strip()[:100]!r}; expected it once")

    set_loader("yaml", load, (yaml.YAMLError,))


no_key_twice()


def restoring(error: BaseException) -> bool:
    """Whether an error arose while Lightning took up what a checkpoint holds."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).name == "checkpoint_connector.py" for frame in frames)


def quiet() -> None:
    """Leaves out what Lightning says that nobody here can act on."""
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", "Total length of `Requests` across ranks is zero")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    advice = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advice.addFilter(lambda record: "litlogger" not in record.getMessage())


@ending
def main(args: Sequence[str] | None = None) -> None:
    """Runs a command with a trainer; errors that the user can mend are one line.

    With the environment variable DIFFUSION_TRACEBACK=1 they show where they come from, too.

    Args:
        args: What follows the program's name; by default the process's own.
    """
    args = sys.argv[1:] if args is None else args
    quiet()
    torch.set_float32_matmul_precision("high")
    try:
        with from_checkpoint(arguments.arranged(args), SECTIONS) as layered:
            CLI(
                L.LightningModule,
                L.LightningDataModule,
                args=layered,
                only=layered[0],
                typed=args,
                parser_class=Parser,
                parser_kwargs={layered[0]: {"epilog": arguments.ORDER}},
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
    except Exception as error:
        if os.environ.get(TRACEBACK) or not restoring(error):
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        fail(f"ckpt_path: {checkpoint_path(args)}; expected what fit saves, it cannot be restored "
             f"({why})")  # fmt: skip
