"""`diffusion swap`: a picture with the identity of another one's face, marked as such."""

from pathlib import Path

from rich import get_console

from diffusion.common.files import check_writable


def swap(
    *,
    source: str,
    target: str,
    output: str,
    ckpt_path: str,
    aligned: bool = False,
    face: int = 0,
    prompt: str = "",
    grown: float = 0.0,
    repeats: int = 0,
    seed: int = 0,
    encoder: str = "",
    base: str = "",
    root: str = "data",
    trust: bool = False,
) -> None:
    """Gives the faces of a picture the identity of another picture's face, and marks the result.

    Faces are found and aligned by five points, swapped, and pasted back under a soft mask at the
    target's own resolution; details finer than the model's pixels stay the target's. The PNG's
    metadata says that a face was swapped, and by which model. See docs/responsible_use.md: only
    with the consent of the people that are seen.

    The kind of checkpoint says how: a Swapper's generator, or an InstantID, which needed no
    training for it and draws the face anew within its mask, from the embedding of the source and
    five points of the target. Outside of the mask no pixel of the target changes.

    Args:
        source: The picture whose identity is given, of one face.
        target: The picture whose faces get it.
        output: The PNG to write; an earlier one is renamed.
        ckpt_path: A checkpoint of a Swapper or an InstantID, or an exported folder.
        aligned: The pictures are as the model's data are, and no face is looked for: drawn avatars.
            An InstantID then needs five points of the target's face: a text beside it, b.txt for
            b.png, as data.pose has it, or else those that are found.
        face: Which face of the target, counted from the left; 0 for all. Profiles do not count.
        prompt: A caption of the result, for an InstantID.
        grown: How many times larger than a face is what an InstantID draws anew, by default 1; 2
            takes in a drawn head with its hair, for pictures that show so much (--aligned).
        repeats: How often an InstantID's sampler goes back and forth, by default 5; see RePaint.
        seed: Of an InstantID's noise.
        encoder: Where the identity encoder is now, if not where it was in training.
        base: Where the base of an InstantID is now, if not where it was in training.
        root: Folder of the package with the face finder's weights.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    from diffusion.common.files import kept
    from diffusion.common.pixels import quantize
    from diffusion.editing.swapped import Swapping
    from diffusion.plots.pictures import save

    path = Path(output).expanduser()
    if path.suffix.lower() != ".png":
        raise ValueError(f"output: {output}; expected a name that ends with .png")
    check_writable(path.parent, "output")
    given = {"prompt": prompt, "grown": grown, "repeats": repeats, "seed": seed}
    drawing = {name: value for name, value in given.items() if value}
    if grown > 1 and not aligned:
        raise ValueError(f"grown: {grown}; expected at most 1 without --aligned, more is cut off")
    model = Swapping(ckpt_path, root, aligned, trust, encoder, base, **drawing)
    picture, n = model(source, target, face)
    with kept(path) as aside:
        save(quantize(picture), aside, model.mark)
    get_console().print(f"wrote {path}: {n} swapped, and marked as such in its metadata")
