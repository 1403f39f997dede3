"""`diffusion caption`: captions of any folder of pictures, or of the data of a captioner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from rich import get_console
from torch import Tensor

from diffusion.cli.captioning.caption_files import BesideFiles, Destination, OneFile
from diffusion.cli.main import CLI, layered_options, quiet
from diffusion.common.hashing import bytes_digest
from diffusion.common.pixels import scaled
from diffusion.common.progress import bar
from diffusion.common.validate import check_counts, first_few
from diffusion.data.captioned_images import Factual
from diffusion.networks.captioning.search import Beam, Sampling, Search
from diffusion.noise import SeededNoise
from diffusion.systems.captioning.captioner import Captioner


def caption(
    *,
    ckpt_path: str,
    folder: str | None = None,
    output: str | None = None,
    format: Literal["txt", "json"] = "txt",
    key: str = "synthetic",
    n: int = 1,
    beam: int = 1,
    temperature: float | None = None,
    top_p: float = 0.9,
    spell: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    config: list[str] | None = None,
    trust: bool = False,
) -> None:
    """Writes captions of pictures: beside those of a folder, or in one file for a data set.

    Captions that are there stay, so that a second call goes on where the first stopped. A picture's
    caption depends on its own name and the seed, not on the others. captions.html shows all.

    Args:
        ckpt_path: The checkpoint of a `Captioner`, or an exported folder.
        folder: Of pictures, with subfolders; the captions of 1.jpg go to 1.txt or 1.json beside it.
        output: Without a folder, the JSON file {name: [caption, …]} of all pictures of the data
            that the checkpoint names, such as `Emoji`.
        format: "txt" has one caption, "json" a list of n under `key`.
        key: Of the .json files, which `ImageText` takes captions of by `captions: {key: weight}`.
        n: How many captions of each picture, 1 … 100; more than one need a temperature.
        beam: How many beginnings a beam follows; 1 is greedy.
        temperature: Draws captions by chance in place of a beam.
        top_p: The probability of the head that is drawn from.
        spell: Words that are no tokens may be spelled in bytes; otherwise captions have only words
            of the training captions.
        seed: Of what is drawn.
        batch_size: Pictures at once.
        config: With `output`, one over the checkpoint's own, for its data. It may be repeated.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    if (folder is None) == (output is None):
        raise ValueError(
            f"folder: {folder}, output: {output}; expected one of them, a folder of pictures or a "
            "JSON file for those of the checkpoint's data"
        )
    check_counts("caption", n=n, batch_size=batch_size)
    check_counts("caption", least=0, most=2**32 - 1, seed=seed)
    if n > 1 and (temperature is None or n > 100 or (folder is not None and format == "txt")):
        raise ValueError(f"n: {n}; expected 1, or with --temperature and --format json at most 100")
    search = Beam(beam, spell) if temperature is None else Sampling(temperature, top_p, spell)
    module = Captioner.load_from_checkpoint(ckpt_path, trust=trust, key="ckpt_path")
    if module.spec is None:
        raise ValueError(f"ckpt_path: {ckpt_path}; expected one that says what it was trained on")
    module.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    shape = module.spec.shape
    if folder is not None:
        to: Destination = BesideFiles(Path(folder).expanduser(), shape, format, key)
    else:
        data = Parts(ckpt_path, config or [], trust).datamodule
        if not isinstance(data, Factual):
            raise ValueError(
                f"output: {output}; expected a checkpoint of data that names its pictures, such as "
                f"Emoji, this one is of {type(data).__name__}: use --folder"
            )
        data.setup("fit")
        to = OneFile(Path(str(output)).expanduser(), data.names, data.pictures)
    run(module, search, to, seed=seed, n=n, batch_size=batch_size)


def run(
    module: Captioner, search: Search, to: Destination, *, seed: int, n: int, batch_size: int
) -> None:
    """Writes the captions that are missing, and a page with all.

    Raises:
        ValueError: If none of the pictures can be read.
        OSError: If captions cannot be written.
    """
    missing = to.missing()
    unreadable: list[str] = []
    with bar("pictures") as progress:
        task = progress.add_task("Writing captions", total=len(missing))
        for first in range(0, len(missing), batch_size):
            names = missing[first : first + batch_size]
            read = {name: x for name in names if (x := to.read(name)) is not None}
            unreadable += [name for name in names if name not in read]
            if read:
                x = scaled(torch.stack([*read.values()])).to(module.device)
                to.write(dict(zip(read, captions(module, search, x, [*read], seed, n))))
            progress.update(task, advance=len(names))
    if missing and len(unreadable) == len(missing):
        raise ValueError(
            f"{to.key}; expected pictures that can be read, all {len(missing)} without a caption "
            f"cannot: {first_few(unreadable)}"
        )
    page, say = to.page(), get_console().print
    say(
        f"{len(missing) - len(unreadable)} pictures captioned, {to.total - len(missing)} had "
        f"captions; see {page}"
    )
    if unreadable:
        say(f"left out {len(unreadable)} that cannot be read: {first_few(unreadable)}")


def captions(
    module: Captioner, search: Search, x: Tensor, names: Sequence[str], seed: int, n: int
) -> list[list[str]]:
    """Returns n captions of each picture (B, C, H, W) in [−1, 1], drawn by its name."""
    numbers = [int(bytes_digest(name.encode()), 16) >> 1 for name in names]
    noise = SeededNoise(seed, numbers, module.device)
    drawn = [module.captions(x, noise.of(i), search)[0] for i in range(n)]
    return [list(texts) for texts in zip(*drawn)]


class Parts(CLI):
    """The data module of a checkpoint's configuration, with nothing run."""

    def __init__(self, ckpt_path: str, config: Sequence[str], trust: bool) -> None:
        quiet()
        alone = ["--trainer.logger=false", "--wandb=off", "--trainer.devices=1"]
        args = ["validate", "--ckpt_path", ckpt_path, *(f"--config={file}" for file in config)]
        args += ["--trust"] * trust + alone
        with layered_options(args) as options:
            super().__init__(L.LightningModule, L.LightningDataModule, **options)

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""
