"""`diffusion average`: the best length of an average of weights, found when training is over."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from rich import get_console
from torch import Tensor

from diffusion.callbacks.metrics import Metrics
from diffusion.cli.checkpoint_config import read_checkpoint, run_of
from diffusion.cli.main import CLI, layered_options, quiet
from diffusion.common.progress import bar
from diffusion.interop import exported_model
from diffusion.metrics.report.record import write_record
from diffusion.plots.pictures import lengths
from diffusion.systems.averages.post_hoc import found, reconstructed
from diffusion.systems.averages.power import gamma_of
from diffusion.systems.trainer import DEFAULTS

WIDTHS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)
LOSS, DISTANCES = "val/loss", ("fd_", "fid@")


def average(
    *,
    ckpt_path: str,
    output: str | None = None,
    widths: list[float] | None = None,
    config: list[str] | None = None,
    license: str = "unknown",
    trust: bool = False,
) -> None:
    """Finds the best length of the average among many, and writes the model with it as a folder.

    The run was trained with `snapshots.every_n_steps` (Karras et al. 2024). Averages are made of
    its snapshots up to the checkpoint, and each is measured as `diffusion test` would: by the
    first Fréchet distance or FID of `metrics`, or by the validation loss where there is none.
    average.png and average.json in the run's folder have all of them. The folder is taken wherever
    a checkpoint is.

    Args:
        ckpt_path: The checkpoint, such as runs/mine/checkpoints/last.ckpt.
        output: The folder to write, which must not exist; by default "averaged" in the run's.
        widths: Lengths to try, σ_rel in units of the whole training; by default 0.02 to 0.25.
        config: One over the checkpoint's own, for its metrics, sampler or data. It may be
            repeated, later ones win.
        license: Of the weights, for the folder's README.md.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    path = Path(ckpt_path)
    content, run = read_checkpoint(path), run_of(path)
    target = Path(output) if output else run / "averaged"
    if target.exists():
        raise FileExistsError(f"output: {target} exists; expected the name of a new folder")
    tried = sorted(set(widths or WIDTHS))
    for width in tried:
        gamma_of(width)
    step = content["global_step"]
    snapshots = found(run / "snapshots", step)
    if not snapshots:
        raise FileNotFoundError(
            f"ckpt_path: {path}; expected a run with snapshots (snapshots.every_n_steps), there "
            f"are none in {run / 'snapshots'} up to step {step}"
        )
    flags = [f"--config={file}" for file in config or []] + ["--trust"] * trust
    alone = ["--trainer.logger=false", "--wandb=off", "--trainer.devices=1"]
    parts = Parts(["validate", "--ckpt_path", ckpt_path, *flags, *alone])
    figures = {"checkpoint": parts.measured(path)}
    with bar("lengths", keep=True) as progress:
        task = progress.add_task("Measuring", total=len(tried))
        for width in tried:
            weights = reconstructed(snapshots, width, step)
            figures[f"{width:g}"] = parts.measured({**content["state_dict"], **weights})
            progress.update(task, advance=1, note=f"{parts.figure} {figures[f'{width:g}']:.4g}")
    best = min(tried, key=lambda width: figures[f"{width:g}"])
    words = f"{parts.figure} {figures[f'{best:g}']:.4g}, the best of {len(tried)} lengths"
    write_record(run / "average.json", {"figure": parts.figure, "step": step, "figures": figures})
    lengths(figures, parts.figure, run / "average.png")
    about = f"σ_rel = {best:g} of a power-function average: {words}, which it was chosen by."
    state = {**content["state_dict"], **reconstructed(snapshots, best, step)}
    card = exported_model.card(target.name, content, license, about)
    exported_model.write_model(target, {**content, "state_dict": state}, card)
    before = f"the checkpoint's own average {figures['checkpoint']:.4g}"
    get_console().print(f"σ_rel {best:g}: {words}; {before}")
    get_console().print(f"wrote {target}, {run / 'average.png'} and average.json")


class Parts(CLI):
    """What the command line makes of a configuration, to be measured with other weights."""

    def __init__(self, args: Sequence[str]) -> None:
        quiet()
        with layered_options(args) as options:
            super().__init__(L.LightningModule, L.LightningDataModule, **options)
        config = self.config_init["validate"]
        self.metrics: Metrics = config.metrics
        self.metrics.validate = True
        about = {key: config.trainer[key] for key in ("accelerator", "limit_val_batches")}
        precision = config.trainer.precision or "32-true"
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options = {**DEFAULTS, **silent, **about, "devices": 1, "precision": precision}
        self.own = L.Trainer(**options, callbacks=[self.metrics])
        self.figure = LOSS

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing yet."""

    def measured(self, weights: Path | Mapping[str, Tensor]) -> float:
        """Returns the figure, whose name is `figure` from then on.

        Args:
            weights: A checkpoint, or a state.
        """
        path = weights if isinstance(weights, Path) else None
        if not isinstance(weights, Path):
            self.model.load_state_dict(weights)
        self.own.validate(self.model, self.datamodule, ckpt_path=path, verbose=False)
        names = [name for name in self.metrics.figures if name.startswith(DISTANCES)]
        self.figure = names[0] if names else LOSS
        return float(self.metrics.figures[names[0]] if names else self.own.callback_metrics[LOSS])
