"""`diffusion truncate`: pictures from the first parts of their embeddings (DALL-E 2, section 4)."""

from pathlib import Path

from rich import get_console

from diffusion.common.files import check_writable


def truncate(
    *pictures: str,
    ckpt_path: str,
    folder: str,
    dims: list[int] | None = None,
    scale: float = 3.0,
    steps: int = 50,
    output: str = "truncated.png",
    trust: bool = False,
) -> None:
    """Draws pictures from their embeddings' first principal components, with the same x_T.

    z_k = √D (m + P_k P_kᵀ (z − m)) / |…|, m and P_k the mean and the first k principal directions
    of the embeddings of a folder's pictures; x_T is random and the same for all k, so that what
    appears is what z says. A page that is there is renamed.

    Args:
        pictures: Files to draw anew.
        ckpt_path: A checkpoint of a network that reads an `ImageEmbedding`, such as DALL-E 2's
            decoder, or an exported folder.
        folder: Pictures whose embeddings have the principal components, at least two.
        dims: The numbers k, repeated; by default 2, 8, 32 and all. N pictures have N − 1 directions
            at most, and a larger k is all of them.
        scale: Of classifier-free guidance.
        steps: Of DDIM.
        output: The page.
        trust: The checkpoint is your own: also classes that are not of this package are made.
    """
    import torch

    from diffusion.data.reading.listing import list_pictures
    from diffusion.editing.embedded import Embedded, Latents, truncated

    check_writable(Path(output).expanduser().parent, "output")
    root = Path(folder).expanduser()
    names = list_pictures(root, "folder").names
    model = Embedded(ckpt_path, "", steps, trust)
    codec = model.codec
    assert codec is not None
    chosen = sorted(set(dims or [2, 8, 32, codec.width]))
    if not 1 <= chosen[0] <= chosen[-1] <= codec.width:
        raise ValueError(f"dims: {chosen}; expected 1 … {codec.width}, as z has so many")
    z_all = torch.cat([codec.encode(model.read([str(root / name)])) for name in names])
    centred = z_all.double() - z_all.double().mean(0)
    directions = int(torch.linalg.matrix_rank(centred))
    chosen = sorted({min(k, directions) for k in chosen})
    x_0 = model.read(pictures)
    parts = [truncated(codec.encode(x_0), z_all, k) for k in chosen]
    x_T = torch.randn(1, *x_0.shape[1:], generator=torch.Generator().manual_seed(0))
    latents = Latents(x_T.expand(len(x_0) * len(parts), -1, -1, -1), torch.cat(parts))
    rows = torch.cat([x_0, model.draw(latents, scale)])
    texts = [Path(one).name for one in pictures]
    texts += [f"{k} of {directions}" for k in chosen for _ in pictures]
    get_console().print(f"wrote {model.sheet(rows, texts, len(x_0), output, scale)}")
