"""`diffusion interpolate`: pictures between two pictures (DALL-E 2, section 3.2)."""

from pathlib import Path

from rich import get_console

from diffusion.common.files import check_writable


def interpolate(
    *pictures: str,
    ckpt_path: str,
    frames: int = 8,
    scale: float = 1.0,
    steps: int = 50,
    output: str = "interpolation.png",
    trust: bool = False,
) -> None:
    """Draws pictures between two, by slerp of their embeddings z and of their x_T.

    x_T is DDIM's inversion of each, so that the ends are the pictures themselves, as far as
    `diffusion invert` says. A page that is there is renamed.

    Args:
        pictures: Two files.
        ckpt_path: A checkpoint of a network that reads an `ImageEmbedding`, such as DALL-E 2's
            decoder, or an exported folder.
        frames: How many pictures, both ends included.
        scale: Of classifier-free guidance; above 1 the ends are no longer the pictures.
        steps: Of DDIM, there and back.
        output: The page.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    import torch

    from diffusion.editing.embedded import Embedded, Latents

    if len(pictures) != 2:
        raise ValueError(f"pictures: {len(pictures)}; expected two")
    if frames < 2:
        raise ValueError(f"frames: {frames}; expected at least 2")
    check_writable(Path(output).expanduser().parent, "output")
    model = Embedded(ckpt_path, "", steps, trust)
    x_0 = model.read(pictures)
    both = model.invert(x_0)
    assert both.z is not None
    a, b = (Latents(both.x_T[i : i + 1], both.z[i : i + 1]) for i in (0, 1))
    weights = torch.linspace(0, 1, frames)
    drawn = model.draw(model.between(a, b, weights), scale)
    names = [Path(pictures[0]).name, *(f"{w:.2f}" for w in weights), Path(pictures[1]).name]
    path = model.sheet(torch.cat([x_0[:1], drawn, x_0[1:]]), names, len(names), output, scale)
    get_console().print(f"wrote {path}")
