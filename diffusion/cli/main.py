"""`diffusion fit|validate|test|predict --config configs/….yaml [--config …] [--key value …]`."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from diffusion.callbacks.bar import Bar
from diffusion.callbacks.monitor import NotFinite
from diffusion.callbacks.save_config import SaveConfig
from diffusion.callbacks.summary import Summary, at_the_end
from diffusion.callbacks.watchdog import Watchdog
from diffusion.cli import arguments, flags
from diffusion.cli.checkpoint_config import checkpoint_path, from_checkpoint
from diffusion.cli.errors import blamed, one_line
from diffusion.cli.parser import TRACEBACK, OneLine, fail
from diffusion.cli.runs import loggers
from diffusion.cli.runs.exit_status import ending
from diffusion.cli.runs.run_folder import check_room, claim
from diffusion.cli.yaml_reader import FAST
from diffusion.common.files import file_of, reason
from diffusion.data.base import Images
from diffusion.data.reading.workers import lost
from diffusion.systems.base import System
from diffusion.systems.checkpoints import latest
from diffusion.systems.checkpoints.contents import check_checkpoint
from diffusion.systems.checkpoints.whole_files import with_whole_files
from diffusion.systems.trainer import check_precision, check_trainer

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
        """Returns the subcommands to build parsers for."""
        every = LightningCLI.subcommands()
        return {self.only: every[self.only]} if self.only in every else every

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `flags.add`."""
        flags.add(parser)

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's configuration is the first layer, under what the user says."""

    def _set_seed(self) -> None:
        """Refuses a seed that NumPy would."""
        seed = self.config[str(self.subcommand)].seed_everything
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed_everything: {seed}; expected 0 .. {2**32 - 1}")
        super()._set_seed()

    @cached_property
    def text(self) -> str:
        """The merged configuration as YAML, which is made once, as it takes long.

        What is in it was checked when it was read.
        """
        parser, config = self._parser(self.command), self.config[self.command]
        return parser.dump(config, skip_none=False, skip_validation=True)

    @cached_property
    def config_dump(self) -> dict[str, Any]:
        """What Lightning takes the hyperparameters of model and data from."""
        return yaml.load(self.text, Loader=FAST)

    def _dump_config(self) -> None:
        """Nothing: `config_dump` is made of the one text."""

    def before_instantiate_classes(self) -> None:
        """Checks the trainer's options, finds the checkpoint, and hands on the prompts.

        Samples that are written are not kept.
        """
        self.command = str(self.subcommand)
        config = self.config[self.command]
        check_trainer(config.trainer)
        check_precision(config.trainer.precision)
        flags.allow_tf32(config.tf32)
        self.folder = Path(config.trainer.default_root_dir)
        config.ckpt_path = latest.resolve(config.ckpt_path, self.folder, self.command)
        if self.command == "predict" and config.return_predictions is None:
            config.return_predictions = False
        flags.hand_on_prompts(config)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Claims the run's folder once there are weights, and adds loggers if it has none."""
        config, fits = self.config[self.command], self.command == "fit"
        self.save_config_kwargs["text"] = self.text
        latest.check_weights(self.model, self.command, self.folder, config.ckpt_path)
        if fits and isinstance(self.model, System):
            self.model.check_start(config.ckpt_path)
        leaves_nothing = config.trainer.fast_dev_run
        if not (fits and leaves_nothing):
            claim(self.folder, self.command, resuming=config.ckpt_path is not None)
        if config.trainer.logger in (None, True) and not leaves_nothing:
            kwargs["logger"] = loggers.make(self.folder, config.wandb, self.command)
        given = self.config_init[self.command].trainer.callbacks or []
        callbacks = [*given] if isinstance(given, list) else [given]
        self.summary, self.watchdog = Summary(), Watchdog()
        callbacks += [self.summary, self.watchdog]
        bars = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config.trainer.enable_progress_bar is not False and not config.trainer.barebones:
            callbacks += [] if bars else [Bar()]
        try:
            return with_whole_files(super().instantiate_trainer(callbacks=callbacks, **kwargs))
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise ValueError(blamed(config.trainer, str(error))) from error

    def after_instantiate_classes(self) -> None:
        """Checks what can be known to fail."""
        config, fits = self.config[self.command], self.command == "fit"
        if config.compile:
            flags.compile_networks(self.model)
        if fits and not config.trainer.fast_dev_run:
            check_room(self.folder, self.model)
        if config.ckpt_path and file_of(Path(config.ckpt_path)).is_file():
            check_checkpoint(self.model, Path(config.ckpt_path), training=fits)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Lightning's table of figures is not printed: `at_the_end` prints one."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return {**kwargs, "verbose": False} if "verbose" in kwargs else kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        """Says at the end where everything is, also after Ctrl-C or an error."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            if self.watchdog.why is not None:
                self.watchdog.end()
            workers = self.datamodule.num_workers if isinstance(self.datamodule, Images) else 0
            if line := lost(error, workers):
                raise ValueError(line) from error
            raise
        finally:
            if self.summary.began and self.trainer.is_global_zero:
                figures = bool(self.config[subcommand].get("verbose", False))
                at_the_end(self.trainer, self.typed, figures)


def quiet() -> None:
    """Leaves out what Lightning says that nobody here can act on."""
    for text in (
        "LightningCLI's args parameter",
        ".*isinstance.treespec, LeafSpec.*",
        ".*does not have many workers.*",
        "Total length of `Requests` across ranks is zero",
        "Checkpoint directory .* exists and is not empty",
        r"Found \d+ module\(s\) in eval mode",
        "Using ModelCheckpoint with manual optimization",
    ):
        warnings.filterwarnings("ignore", text)
    advice = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advice.addFilter(lambda record: "litlogger" not in record.getMessage())


@contextmanager
def layered_options(args: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the options of a `CLI`, for arguments with a checkpoint's configuration in them."""
    with from_checkpoint(arguments.arranged(args), flags.SECTIONS) as layered:
        yield {
            "args": layered,
            "only": layered[0],
            "typed": args,
            "parser_class": Parser,
            "parser_kwargs": {layered[0]: {"epilog": arguments.ORDER}},
            "save_config_callback": SaveConfig,
            "save_config_kwargs": {"save_to_log_dir": False},
            "seed_everything_default": 0,
            "subclass_mode_data": True,
            "subclass_mode_model": True,
            "trainer_defaults": flags.TRAINER,
            "auto_configure_optimizers": False,
        }


@ending
def main(args: Sequence[str] | None = None) -> None:
    """Runs a command with a trainer; errors that the user can mend are one line.

    With the environment variable DIFFUSION_TRACEBACK=1 they show where they come from, too.

    Args:
        args: What follows the program's name; by default the process's own.
    """
    args = sys.argv[1:] if args is None else args
    quiet()
    try:
        with layered_options(args) as options:
            CLI(L.LightningModule, L.LightningDataModule, **options)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        restoring = any(frame.filename.endswith("checkpoint_connector.py") for frame in frames)
        if os.environ.get(TRACEBACK) or not (restoring or isinstance(error, ERRORS)):
            raise
        if not isinstance(error, ERRORS):
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            fail(f"ckpt_path: {checkpoint_path(args)}; expected what fit saves, it cannot be "
                 f"restored ({why})")  # fmt: skip
        began = any(frame.name == "_run_stage" for frame in frames)
        text = reason(error) if isinstance(error, OSError) else str(error)
        fail(one_line(text) + (f" ({TRACEBACK}=1 shows where)" if began else ""))
