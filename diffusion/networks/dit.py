"""The diffusion transformer (DiT, Peebles & Xie 2023, https://arxiv.org/abs/2212.09748)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.embedding import TimeLabelEmbedding, sinusoidal
from diffusion.networks.half_precision import attend
from diffusion.networks.unet.attention import heads_of, split_heads
from diffusion.networks.unet.style import xavier, zero

TIME_DIM = 256  # of the sinusoids, in DiT's code


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Returns (1 + γ) LN(h) + β for tokens h (B, N, D), shift β and scale γ (B, 1, D)."""
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


def waves_of_places(side: int, width: int) -> Tensor:
    """Returns the fixed embedding (side², D) of a square's places, row by row, float32.

    The first half of D is `sinusoidal` of the column, the second of the row, each with the sines
    first and ωᵢ = 10000^(−4i/D), as in MAE's code, from which DiT's is.
    """
    place = torch.arange(side)
    cos, sin = sinusoidal(place, width // 2, "openai").chunk(2, 1)
    waves = torch.cat([sin, cos], 1)
    columns, rows = waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1)


class AdaptiveBlock(nn.Module):
    """h ↦ h + α₁ Attention(γ₁, β₁: LN(h)), then h ↦ h + α₂ MLP(γ₂, β₂: LN(h)) (adaLN-Zero, fig. 3).

    β, γ and α are linear in SiLU of the embedding, and start at 0, so the block as the identity.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads_of(width, heads, None)
        self.qkv, self.out = xavier(nn.Linear(width, 3 * width)), xavier(nn.Linear(width, width))
        self.mlp_in = xavier(nn.Linear(width, 4 * width))
        self.mlp_out = xavier(nn.Linear(4 * width, width))
        self.modulation = zero(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Maps tokens h (B, N, D) to the same, with SiLU of the embedding (B, D)."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(emb)[:, None].chunk(
            6, dim=2
        )
        q, k, v = split_heads(self.qkv(modulate(h, shift, scale)), self.heads, "qkv-heads")
        h = h + gate * self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        inner = F.gelu(self.mlp_in(modulate(h, shift_mlp, scale_mlp)), approximate="tanh")
        return h + gate_mlp * self.mlp_out(inner)


class DiT(Network):
    """network(x_t, t, label): a transformer over the patches of an image.

    The defaults are DiT-XL/2, 675 M parameters, of the paper's table 1, for 32×32×4 latents; a
    network that learns the variance too has twice the channels at the output.

    Args:
        image_size: Height and width, of which `patch` is a divisor.
        in_channels: Channels of x_t.
        out_channels: Of the output; None for in_channels.
        patch: p, the side of a patch.
        width: D, the size of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Heads of each block's attention.
        num_classes: K; None for a network without labels.
        null_class: Whether ∅ has a row of its own.
        time_scale: What t − 1 is multiplied by; see `TimeLabelEmbedding`.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    fixed = True

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 4,
        out_channels: int | None = None,
        patch: int = 2,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        num_classes: int | None = None,
        null_class: bool = True,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_counts("network", image_size=image_size, in_channels=in_channels, depth=depth)
        check_counts("network", out_channels=out_channels, patch=patch, width=width)
        if image_size % patch:
            raise ValueError(f"network.image_size: {image_size}; expected a multiple of {patch}")
        if width % 4:
            raise ValueError(f"network.width: {width}; expected a multiple of 4")
        self.image_size, self.in_channels, self.num_classes = image_size, in_channels, num_classes
        self.out_channels = in_channels if out_channels is None else out_channels
        self.patch = self.factor = patch
        self.patches = xavier(nn.Linear(in_channels * patch**2, width))
        places = waves_of_places(image_size // patch, width)
        self.places = nn.Buffer(places, persistent=False)
        self.embedding = TimeLabelEmbedding(
            TIME_DIM, width, num_classes, null_class, time_scale, "openai"
        )
        for name, p in self.embedding.named_parameters():
            nn.init.normal_(p, std=0.02) if "bias" not in name else nn.init.zeros_(p)
        self.conditioners = self.embedding.conditioners
        self.blocks = nn.ModuleList([AdaptiveBlock(width, heads) for _ in range(depth)])
        self.modulation = zero(nn.Linear(width, 2 * width))
        self.out = zero(nn.Linear(width, self.out_channels * patch**2))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the raw output (B, out_channels, H, W) for noisy images.

        Args:
            x_t: Images (B, in_channels, image_size, image_size).
            t: Times (B,) in 1 … T, integers or floats.
            label: Classes (B,) in 0 … K; None for ∅.
        """
        self.check_size(x_t)
        squares = F.pixel_unshuffle(x_t, self.patch)
        h = self.patches(squares.flatten(2).transpose(1, 2))
        h = h + self.places.to(h.dtype)
        emb = F.silu(self.embedding(t, label))
        for block in self.blocks:
            h = block(h, emb)
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=2)
        values = self.out(modulate(h, shift, scale)).transpose(1, 2)
        return F.pixel_shuffle(values.unflatten(2, squares.shape[2:]), self.patch)
