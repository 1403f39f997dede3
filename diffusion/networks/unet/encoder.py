"""The encoder half of a UNet: the way down and the middle."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion.common.validate import check_counts
from diffusion.networks.base import Network
from diffusion.networks.embedding import TimeLabelEmbedding
from diffusion.networks.unet.attention import attention_of
from diffusion.networks.unet.blocks import ResBlock, resampling
from diffusion.networks.unet.levels import attended, level_blocks, level_widths
from diffusion.networks.unet.style import Family, QKVOrder, Resample, Style, TokenStyle
from diffusion.networks.unet.token_attention import Source


class Stage(nn.Module):
    """A residual block, attention if `attend`, and twice the resolution if `double`."""

    def __init__(
        self, channels: int, out_channels: int, style: Style, *, attend: bool, double: bool = False
    ) -> None:
        super().__init__()
        self.block = ResBlock(channels, out_channels, style)
        self.attention = attention_of(out_channels, style) if attend else None
        self.upsample = resampling(out_channels, style, "up") if double else None

    def forward(
        self, h: Tensor, emb: Tensor, sources: Mapping[str, Source] | None = None
    ) -> Tensor:
        """Maps h (B, channels, H, W) and SiLU(emb) (B, E) to (B, out_channels, H', W')."""
        h = self.block(h, emb)
        h = h if self.attention is None else self.attention(h, sources)
        return h if self.upsample is None else self.upsample(h, emb)


class Encoder(Network):
    """From noisy images to the feature maps of every stage down to the middle.

    Args:
        image_size: Height and width of the images in pixels.
        in_channels: Channels of x_t.
        channels: What `multipliers` multiply, even and at least 4; also the size of the
            sinusoidal embedding.
        multipliers: Channels of each level as multiples of `channels`; each level after the
            first has half the resolution of the one before.
        attention: Resolutions of the grid (image_size / patch, and its halves) that have
            attention after each residual block. The middle always has it.
        blocks: Residual blocks per level on the way down, one more on the way up: one number for
            all levels, or one for each (Imagen's Efficient UNet has more where the maps are small).
        dropout: Probability in each residual block; DDPM's CIFAR-10 model has 0.1.
        heads: Heads of the self-attention, if `head_width` is None.
        head_width: Channels per head (ADM), whatever `heads` says; None for `heads`.
        scale_shift: Whether the embedding scales and shifts the second norm of each residual
            block, GN(h)(1 + scale) + shift (Improved DDPM, ADM), instead of being added before it.
        resample: How the resolution changes between levels: by a 3x3 convolution ("conv"), or
            inside a residual block ("block": BigGAN's, ADM).
        qkv_order: How the joint weight of Q, K and V is ordered: all of Q, then K, then V, each
            with its heads ("qkv-heads": DDPM, and ADM's ImageNet-64 network, flag
            use_new_attention_order), or head by head, each with its q, k, v ("heads-qkv": Improved
            DDPM and ADM's other networks). It matters for published weights only, which load
            without an error into the wrong one.
        family: Whose code decides the details: "ddpm" is sinusoids [sin, cos] with a last
            frequency of 10⁻⁴, GroupNorm's ε = 1e-6, TensorFlow's SAME padding where a convolution
            halves the resolution, and Xavier weights; "openai" (improved-diffusion and
            guided-diffusion) is [cos, sin], 1e-5, padding 1, and PyTorch's initial weights.
        time_scale: What t − 1 is multiplied by before it is embedded: 1000 / T in Improved DDPM's
            code (rescale_timesteps).
        patch: Side of the pixel squares that are folded into channels at the input and unfolded
            at the output: 2 costs about a quarter of 1.
        groups: Of GroupNorm, at most; see `Style.norm`.
        checkpointing: Whether training computes the activations inside each layer a second time
            instead of keeping them: less memory for about a third more time, the same gradients.
        num_classes: K classes for the condition `label`, whose ∅ is K; None for no labels.
        null_class: Whether ∅ has a row in the class embedding. Published ADM networks have none,
            and cannot be guided without a classifier.
        streams: The streams of tokens that attention reads.
        self_attention: Whether attention reads the positions; without, it reads the tokens of
            streams alone, whose route is "cross", and without streams there is none.
        resample_first: Whether every level, the first too, halves the resolution before its blocks
            and doubles it after them, so that no block works at that of the images (Imagen's
            Efficient UNet, Saharia et al. 2022, appendix B). Otherwise that is between levels.

    Attributes:
        widths: Channels of the first map and of each level.
        blocks: Residual blocks of each level on the way down.
        attend: Whether each level has attention.
        skips: Channels of the maps that the way down leaves behind.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int | float] = (1, 2, 2, 2),
        attention: Sequence[int] = (16,),
        blocks: int | Sequence[int] = 2,
        dropout: float = 0.0,
        heads: int = 1,
        head_width: int | None = None,
        scale_shift: bool = False,
        resample: Resample = "conv",
        qkv_order: QKVOrder = "qkv-heads",
        family: Family = "ddpm",
        time_scale: float = 1.0,
        patch: int = 1,
        groups: int = 32,
        checkpointing: bool = False,
        num_classes: int | None = None,
        null_class: bool = True,
        streams: Sequence[TokenStyle] = (),
        self_attention: bool = True,
        resample_first: bool = False,
    ) -> None:
        super().__init__()
        check_counts("network", patch=patch, in_channels=in_channels)
        levels, width = level_widths(channels, multipliers), 4 * channels
        self.widths = [levels[0], *levels]
        first = 2 * patch if resample_first else patch
        self.attend = attended(image_size, first, len(levels), attention)
        self.image_size, self.in_channels, self.num_classes = image_size, in_channels, num_classes
        self.patch, self.factor = patch, first * 2 ** (len(levels) - 1)
        self.blocks = level_blocks(blocks, len(levels))
        self.resample_first, self.checkpointing = resample_first, checkpointing
        self.style = style = Style(
            emb_width=width,
            dropout=dropout,
            groups=groups,
            family=family,
            scale_shift=scale_shift,
            resample=resample,
            heads=heads,
            head_width=head_width,
            qkv_order=qkv_order,
            streams=tuple(streams),
            self_attention=self_attention,
        )
        self.embedding = TimeLabelEmbedding(
            channels, width, num_classes, null_class, time_scale, family
        )
        self.conv_in = style.start(nn.Conv2d(in_channels * patch**2, levels[0], 3, padding=1))
        self.down, self.skips = nn.ModuleList(), list[int]()
        for i, (before, width) in enumerate(pairwise(self.widths)):
            if i > 0 or resample_first:
                self.down.append(resampling(before, style, "down"))
            for h in (before, *[width] * (self.blocks[i] - 1)):
                self.down.append(Stage(h, width, style, attend=self.attend[i]))
            self.skips += [before, *[width] * self.blocks[i]]
        self.middle = nn.ModuleList(
            [Stage(levels[-1], levels[-1], style, attend=attend) for attend in (True, False)]
        )

    def encode(
        self,
        x_t: Tensor,
        emb: Tensor,
        sources: Mapping[str, Source] | None = None,
        hint: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns h after the middle, and the maps left behind on the way down.

        Args:
            x_t: Images (B, in_channels, H, W).
            emb: SiLU of the embedding, (B, E).
            sources: The states of streams of tokens, where the style has some.
            hint: What is added to the first map (ControlNet).
        """
        h = self.conv_in(F.pixel_unshuffle(x_t, self.patch))
        h = h if hint is None else h + hint
        skips = [] if self.resample_first else [h]
        for layer in self.down:
            h = self.run(layer, h, emb, sources)
            skips.append(h)
        for layer in self.middle:
            h = self.run(layer, h, emb, sources)
        return h, skips

    def run(
        self, layer: nn.Module, h: Tensor, emb: Tensor, sources: Mapping[str, Source] | None
    ) -> Tensor:
        """Returns the layer's result, keeping only inputs for the gradient if `checkpointing`."""
        inputs = (h, emb, sources) if isinstance(layer, Stage) else (h, emb)
        if self.checkpointing and h.requires_grad:
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)
