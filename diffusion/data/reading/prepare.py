"""`diffusion prepare`: a folder of pictures, stored once at the size that they are trained at."""

import os
from collections import Counter
from pathlib import Path

from rich import get_console


def prepare(*, folder: str, output: str, size: int, workers: int = 0) -> None:
    """Stores a folder's pictures at training size, as PNG, for ImageFolder and ImageText.

    They are resized and cropped as in training, so that training on them reads the same pixels.
    Captions beside them (.txt, .json) are copied. What is there already stays as it is.

    Args:
        folder: Of the pictures, with subfolders or without.
        output: The folder to write, or to go on with.
        size: Height and width: the shorter side is resized to it and the centre cropped.
        workers: Pictures at a time; 0 for one a core.
    """
    from concurrent.futures import ThreadPoolExecutor

    from diffusion.common.files import check_writable
    from diffusion.common.progress import bar
    from diffusion.common.validate import check_counts, first_few
    from diffusion.data.reading.listing import list_pictures

    check_counts("prepare", size=size)
    check_counts("prepare", least=0, workers=workers)
    source, target = Path(folder).expanduser(), Path(output).expanduser()
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"output: {output}, within {folder}; expected a folder outside of it")
    listing = list_pictures(source, "folder")
    names, found = listing.names, Counter[str]()
    becomes = {name: f"{os.path.splitext(name)[0]}.png" for name in names}
    if twice := {path for path, n in Counter(becomes.values()).items() if n > 1}:
        same = first_few([name for name in names if becomes[name] in twice], 4)
        raise ValueError(f"folder: {folder}; expected other names where all become .png: {same}")
    check_writable(target, "output")
    unreadable = list[str]()
    count = workers or os.cpu_count() or 1
    with bar("pictures") as progress, ThreadPoolExecutor(count) as pool:
        task = progress.add_task("pictures", total=len(names))
        for first in range(0, len(names), 1000):  # of millions, not all wait at once
            some = names[first : first + 1000]
            done = pool.map(lambda x: _store(source / x, target / becomes[x], size), some)
            for name, what in zip(some, done):
                found[what] += 1
                unreadable += [name] if what == "unreadable" else []
                progress.advance(task)
    if others := listing.left_out(names, listing.folders):
        get_console().print(f"left out: {others}")
    if unreadable:
        get_console().print(f"{len(unreadable)} unreadable: {first_few(unreadable, 100)}")
    if len(unreadable) == len(names):
        raise ValueError(f"folder: {folder}; expected pictures, none of {len(names)} can be read")
    get_console().print(
        f"wrote {output}: {found['stored']} pictures of {len(names)}, "
        f"{found['there']} were there, {found['unreadable']} are unreadable"
    )


def _store(source: Path, target: Path, size: int) -> str:
    """Writes a picture and its captions, and returns "stored", "there" or "unreadable".

    Raises:
        ValueError: If there is a picture of another size.
    """
    import shutil

    from PIL import Image

    from diffusion.common.files import written_aside
    from diffusion.data.reading.decoding import read_picture, upright_size

    if there := target.exists():
        if (other := upright_size(target)) != (size, size):
            raise ValueError(
                f"output: {target} is {other[0]} x {other[1]}; expected {size} x {size}, or a new "
                "folder"
            )
    else:
        try:
            x = read_picture(source, size, 3)
        except ValueError:
            return "unreadable"
        grey = bool((x == x[:1]).all())
        image = Image.fromarray((x[0] if grey else x.permute(1, 2, 0)).numpy())
        with written_aside(target, durable=False) as aside:
            image.save(aside)
    for ending in (".txt", ".json"):
        caption, copy = source.with_suffix(ending), target.with_suffix(ending)
        if caption.is_file() and not copy.exists():
            with written_aside(copy, durable=False) as aside:
                shutil.copyfile(caption, aside)
    return "there" if there else "stored"
