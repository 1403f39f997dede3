"""`diffusion reword`: a picture, moved by the difference of two texts (DALL-E 2, section 3.3)."""

from pathlib import Path

from rich import get_console

from diffusion.common.files import check_writable


def reword(
    *pictures: str,
    ckpt_path: str,
    before: str,
    after: str,
    clip: str = "weights/clip_emoji",
    most: float = 0.5,
    frames: int = 6,
    scale: float = 1.0,
    steps: int = 50,
    output: str = "reworded.png",
    trust: bool = False,
) -> None:
    """Turns the embeddings of pictures towards the difference of two texts.

    z_θ = slerp(z, √D d / |d|, θ), d = g(after) − g(before) of CLIP's unit vectors of the texts, for
    θ from 0 to `most`; x_T is DDIM's inversion and stays. A page that is there is renamed.

    Args:
        pictures: Files.
        ckpt_path: A checkpoint of a network that reads an `ImageEmbedding`, such as DALL-E 2's
            decoder, or an exported folder.
        before: What the pictures show, such as 'a winter landscape'.
        after: What they are to show, such as 'a summer landscape'.
        clip: The CLIP whose embeddings the network reads.
        most: The largest θ, 0 … 1; the paper has 0.25 to 0.5.
        frames: How many pictures, both ends included.
        scale: Of classifier-free guidance.
        steps: Of DDIM, there and back.
        output: The page.
        trust: The checkpoints are your own: also classes that are not of this package are made.
    """
    import torch

    from diffusion.common.hashing import weights_digest
    from diffusion.editing.embedded import Embedded, Latents, slerp
    from diffusion.systems.embeddings.clip_image import FrozenClipImage
    from diffusion.systems.embeddings.clip_text import FrozenClipText
    from diffusion.systems.frozen.guides import FrozenClip, clip_parts

    if not 0 < most <= 1:
        raise ValueError(f"most: {most}; expected above 0, at most 1")
    if frames < 2:
        raise ValueError(f"frames: {frames}; expected at least 2")
    check_writable(Path(output).expanduser().parent, "output")
    model = Embedded(ckpt_path, "", steps, trust)
    given = FrozenClip(*clip_parts(clip, trust, "clip"))
    assert model.codec is not None
    mine = weights_digest(FrozenClipImage(given).state_dict())
    if weights_digest(model.codec.state_dict()) != mine:
        raise ValueError(f"clip: {clip}; expected the CLIP whose embeddings the network reads")
    g = FrozenClipText(given).read([before, after])["_pooled"]
    d = g[1:] - g[:1]
    if not d.any():
        raise ValueError(f"after: {after!r}; expected another text than before, as CLIP sees them")
    x_0, weights = model.read(pictures), torch.linspace(0, most, frames)
    latents = model.invert(x_0)
    assert latents.z is not None
    goal = latents.z.shape[1] ** 0.5 * torch.nn.functional.normalize(d)
    turned = torch.cat([slerp(z[None], goal, weights) for z in latents.z])
    same = latents.x_T.repeat_interleave(frames, 0)
    drawn = model.draw(Latents(same, turned), scale).unflatten(0, (len(x_0), frames))
    page = torch.cat([x_0[:, None], drawn], 1).flatten(0, 1)
    names = [f"{before} → {after}", *(f"θ = {w:.2f}" for w in weights)] * len(x_0)
    get_console().print(f"wrote {model.sheet(page, names, frames + 1, output, scale)}")
