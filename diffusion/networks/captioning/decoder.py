"""A causal transformer over the tokens of a text that looks at a picture."""

from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.half_precision import attend
from diffusion.networks.transformer import Block, start
from diffusion.networks.unet.attention import heads_of

Past = list[list[Tensor]]  # K and V of every layer, [] before the first token


class PictureAttention(nn.Module):
    """h ↦ h + W softmax(QKᵀ/√d) V, Q of LN(h), K and V of the states of a picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads_of(width, heads, None)
        self.norm = nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, states: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """Maps h (B, N, D) to the same.

        Args:
            h: The text.
            states: The picture's, (B, M, D).
            past: Keeps K and V of the picture from one call to the next.
        """
        q = self.query(self.norm(h)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k_v = past or self.key_value(states).unflatten(2, (2, self.heads, -1)).unbind(2)
        k, v = (x if past else x.transpose(1, 2) for x in k_v)
        if past is not None:
            past[:] = [k, v]
        values = attend(q, k, v)
        return h + self.out(values.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """CoCa's two halves (Yu et al. 2022, arXiv 2205.01917, section 3.2).

    The first blocks read the text alone; from there on each block looks at the picture first. Every
    position reads itself and those before it.

    Args:
        width: D.
        depth: Blocks of the first half.
        looks: Blocks of the second.
        heads: Of all attention.
    """

    def __init__(self, width: int, depth: int, looks: int, heads: int) -> None:
        super().__init__()
        check_counts("network", width=width, depth=depth, looks=looks)
        self.depth, every = depth, depth + looks
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(every)])
        self.looks = nn.ModuleList([PictureAttention(width, heads) for _ in range(looks)])
        self.norm_text, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        start(self.blocks, every)
        start(self.looks, every)

    def past(self) -> Past:
        """Returns what `forward` keeps of the tokens that it has read: nothing yet."""
        return [[] for _ in (*self.blocks, *self.looks)]

    def forward(self, h: Tensor, states: Tensor, past: Past | None = None) -> tuple[Tensor, Tensor]:
        """Returns the states of the first half and of the second, each (B, N, D).

        Args:
            h: The tokens, (B, N, D): all of them, or with a past that is not empty the next one.
            states: The picture's, (B, M, D).
            past: Keys and values of the tokens before, to which theirs are added.
        """
        kept = past or [None] * (len(self.blocks) + len(self.looks))
        of_blocks, of_looks = kept[: len(self.blocks)], kept[len(self.blocks) :]
        for block, own in zip(self.blocks[: self.depth], of_blocks):
            h = block(h, past=own, causal=True)
        text = self.norm_text(h)
        second = zip(self.looks, of_looks, self.blocks[self.depth :], of_blocks[self.depth :])
        for look, seen, block, own in second:
            h = block(look(h, states, seen), past=own, causal=True)
        return text, self.norm(h)
