"""`diffusion caption`: captions of any folder of pictures, or of the data of a captioner."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from rich import get_console

from diffusion.cli.captioning.caption_files import BesideFiles, Destination, OneFile
from diffusion.cli.captioning.describer import Describer, OwnCaptioner
from diffusion.cli.captioning.published_captioner import PublishedCaptioner
from diffusion.cli.choosing.parts import Parts
from diffusion.common.progress import bar
from diffusion.common.validate import check_counts, first_few
from diffusion.data.captioned_images import Factual
from diffusion.networks.captioning.search import Beam, Sampling
from diffusion.systems.captioning.captioner import Captioner


def caption(
    *,
    ckpt_path: str | None = None,
    hugging_face: str | None = None,
    folder: str | None = None,
    output: str | None = None,
    format: Literal["txt", "json"] = "txt",
    key: str = "synthetic",
    prompt: str | None = None,
    length: int | None = None,
    n: int = 1,
    beam: int = 1,
    temperature: float | None = None,
    top_p: float = 0.9,
    spell: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    config: list[str] | None = None,
    trust: bool = False,
) -> None:
    """Writes captions of pictures: beside those of a folder, or in one file for a data set.

    Captions that are there stay, so that a second call goes on where the first stopped. A picture's
    caption depends on its own name and the seed, not on the others. captions.html shows all.

    Args:
        ckpt_path: The checkpoint of a `Captioner`, or an exported folder.
        hugging_face: In its place an image-to-text model of `transformers`: its name on the Hugging
            Face Hub, or a folder.
        folder: Of pictures, with subfolders; the captions of 1.jpg go to 1.txt or 1.json beside it.
        output: Without a folder, the JSON file {name: [caption, …]} of all pictures of the data
            that the checkpoint names, such as `Emoji`.
        format: "txt" has one caption, "json" a list of n under `key`.
        key: Of the .json files, which `ImageText` takes captions of by `captions: {key: weight}`.
        prompt: With `hugging_face`, what a model that chats is asked, or how captions begin.
        length: With `hugging_face`, the most tokens to write; by default as the model has it.
        n: How many captions of each picture, 1 … 100; more than one need a temperature.
        beam: How many beginnings a beam follows; 1 is greedy.
        temperature: Draws captions by chance in place of a beam.
        top_p: The probability of the head that is drawn from.
        spell: Words that are no tokens may be spelled in bytes; otherwise captions have only words
            of the training captions.
        seed: Of what is drawn.
        batch_size: Pictures at once; by default 64, with `hugging_face` 8.
        config: With `output`, one over the checkpoint's own, for its data. It may be repeated.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    if (ckpt_path is None) == (hugging_face is None):
        raise ValueError(
            f"ckpt_path: {ckpt_path}, hugging_face: {hugging_face}; expected one of them, a "
            "Captioner's checkpoint or an image-to-text model"
        )
    if (folder is None) == (output is None):
        raise ValueError(
            f"folder: {folder}, output: {output}; expected one of them, a folder of pictures or a "
            "JSON file for those of the checkpoint's data"
        )
    check_counts("caption", n=n, batch_size=batch_size, length=length)
    check_counts("caption", least=0, most=2**32 - 1, seed=seed)
    if n > 1 and (temperature is None or n > 100 or (folder is not None and format == "txt")):
        raise ValueError(f"n: {n}; expected 1, or with --temperature and --format json at most 100")
    search = Beam(beam, spell) if temperature is None else Sampling(temperature, top_p, spell)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if hugging_face is not None:
        others = {"output": output, "config": config, "spell": spell, "trust": trust}
        check_unused("hugging_face", others)
        writes: Describer = PublishedCaptioner(
            hugging_face, search, seed, n, prompt=prompt, length=length, device=device
        )
    else:
        check_unused("ckpt_path", {"prompt": prompt, "length": length})
        module = Captioner.load_from_checkpoint(str(ckpt_path), trust=trust, key="ckpt_path")
        if module.spec is None:
            raise ValueError(
                f"ckpt_path: {ckpt_path}; expected one that says what it was trained on"
            )
        writes = OwnCaptioner(module.eval().to(device), search, seed, n)
    if folder is not None:
        to: Destination = BesideFiles(Path(folder).expanduser(), writes.read, format, key)
    else:
        to = of_data(str(ckpt_path), str(output), config or [], trust)
    write_missing(writes, to, batch_size or writes.at_once)


def check_unused(key: str, options: Mapping[str, object]) -> None:
    """Refuses options that say nothing to what a key names."""
    if found := [f"{name}: {value}" for name, value in options.items() if value]:
        raise ValueError(f"{', '.join(found)}; expected none with --{key}")


def of_data(ckpt_path: str, output: str, config: Sequence[str], trust: bool) -> OneFile:
    """Returns the file for all pictures of a checkpoint's data.

    Raises:
        ValueError: If the data do not name their pictures.
    """
    flags = [*(f"--config={file}" for file in config), *["--trust"] * trust]
    data = Parts(ckpt_path, flags).datamodule
    if not isinstance(data, Factual):
        raise ValueError(
            f"output: {output}; expected a checkpoint of data that names its pictures, such as "
            f"Emoji, this one is of {type(data).__name__}: use --folder"
        )
    data.setup("fit")
    return OneFile(Path(output).expanduser(), data.names, data.pictures)


def write_missing(writes: Describer, to: Destination, batch_size: int) -> None:
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
                to.write(dict(zip(read, writes(read))))
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
