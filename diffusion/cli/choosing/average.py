"""`diffusion average`: the best length of an average of weights, found when training is over."""

from pathlib import Path

from rich import get_console

from diffusion.cli.checkpoint_config import read_checkpoint, run_of
from diffusion.cli.choosing.parts import Parts
from diffusion.common.progress import bar
from diffusion.interop import exported_model
from diffusion.metrics.report.record import write_record
from diffusion.plots.pictures import lengths
from diffusion.systems.averages.post_hoc import reconstructed, snapshots_until
from diffusion.systems.averages.power import gamma_of

WIDTHS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)


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
    snapshots = snapshots_until(run / "snapshots", step)
    if not snapshots:
        raise FileNotFoundError(
            f"ckpt_path: {path}; expected a run with snapshots (snapshots.every_n_steps), there "
            f"are none in {run / 'snapshots'} up to step {step}"
        )
    flags = [f"--config={file}" for file in config or []] + ["--trust"] * trust
    parts = Parts(ckpt_path, flags)
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
