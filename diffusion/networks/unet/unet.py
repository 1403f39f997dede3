"""The UNet of DDPM (Ho et al. 2020), Improved DDPM (Nichol & Dhariwal 2021), ADM and GLIDE."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.base import Conditioner, distinct
from diffusion.networks.conditioning.low_resolution import LevelEmbedding
from diffusion.networks.unet.encoder import Encoder, Stage, level_widths
from diffusion.networks.unet.streams import Stream, Streams
from diffusion.networks.unet.style import (
    Family,
    QKVOrder,
    Resample,
    Style,
    TimeLabelEmbedding,
    TokenStyle,
    zero,
)
from diffusion.networks.unet.token_attention import Source


class UNet(Encoder):
    """network(x_t, t, label, **conditions): a UNet with the time in every residual block.

    The defaults are the 35.7 M network of DDPM for CIFAR-10 (its appendix B), parameter for
    parameter. Improved DDPM and ADM are family="openai", scale_shift=True and twice the channels
    at the output, ADM also has resample="block"; configs/ has their published settings.

    Args:
        image_size: Height and width of the images in pixels.
        in_channels: Channels of x_t.
        out_channels: Channels of the output, 2 · in_channels to learn the variance as well;
            None for in_channels.
        channels: What `multipliers` multiply, even and at least 4; also the size of the
            sinusoidal embedding.
        multipliers: Channels of each level as multiples of `channels`; each level after the
            first has half the resolution of the one before.
        attention: Resolutions of the grid (image_size / patch, and its halves) that have
            self-attention after each residual block. The middle always has it.
        blocks: Residual blocks per level on the way down; one more on the way up.
        dropout: Probability in each residual block; the paper's CIFAR-10 model has 0.1.
        heads: Heads of the self-attention, if `head_width` is None.
        head_width: Channels per head (ADM), whatever `heads` says; None for `heads`.
        num_classes: K classes for the condition `label`, whose ∅ is K; None for no labels.
        null_class: Whether ∅ has a row in the class embedding. Published ADM networks have none,
            and cannot be guided without a classifier.
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
        groups: Of GroupNorm, at most; see `group_norm`.
        checkpointing: Whether training computes the activations inside each layer a second time
            instead of keeping them: less memory for about a third more time, the same gradients.
        streams: Sources of tokens that every layer of attention reads, by name: {"text": …} takes
            the batch's "text"; None for none.
        inputs: Conditioners whose channels are joined to x_t's, in this order: a `LowResolution`
            makes it an upsampler, `Known` one that inpaints.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        out_channels: int | None = None,
        channels: int = 128,
        multipliers: Sequence[int | float] = (1, 2, 2, 2),
        attention: Sequence[int] = (16,),
        blocks: int = 2,
        dropout: float = 0.0,
        heads: int = 1,
        head_width: int | None = None,
        num_classes: int | None = None,
        null_class: bool = True,
        scale_shift: bool = False,
        resample: Resample = "conv",
        qkv_order: QKVOrder = "qkv-heads",
        family: Family = "ddpm",
        time_scale: float = 1.0,
        patch: int = 1,
        groups: int = 32,
        checkpointing: bool = False,
        streams: dict[str, Stream] | None = None,
        inputs: Sequence[Conditioner] = (),
    ) -> None:
        levels = level_widths(channels, multipliers)
        style = Style(
            emb_width=4 * channels,
            dropout=dropout,
            groups=groups,
            family=family,
            scale_shift=scale_shift,
            resample=resample,
            heads=heads,
            head_width=head_width,
            qkv_order=qkv_order,
            streams=tuple(
                TokenStyle(name, stream.encoder.width, stream.route)
                for name, stream in (streams or {}).items()
            ),
        )
        more = [one.channels(in_channels) for one in inputs]
        if 0 in more:
            raise ValueError(
                f"network.inputs: {type(inputs[more.index(0)]).__name__}; expected conditioners "
                "that join channels to an image"
            )
        super().__init__(
            image_size,
            in_channels + sum(more),
            levels,
            attention,
            blocks,
            TimeLabelEmbedding(channels, 4 * channels, num_classes, null_class, time_scale, family),
            patch,
            style,
            checkpointing,
        )
        self.in_channels, self.num_classes = in_channels, num_classes
        self.inputs = nn.ModuleList(inputs)
        first = in_channels
        for one, channels in zip(inputs, more):
            if one.starts_at_zero:
                here = slice(first * patch**2, (first + channels) * patch**2)
                nn.init.zeros_(self.conv_in.weight[:, here].data)
            first += channels
        self.streams = Streams(streams, style) if streams else None
        tokens = () if self.streams is None else self.streams.tokens
        self.conditioners = distinct([*inputs, *self.embedding.conditioners, *tokens])
        check_counts("network", out_channels=out_channels)
        self._build(blocks, style)
        self.norm_out = style.norm(self.widths[1])
        self.out_channels = out_channels = in_channels if out_channels is None else out_channels
        self.conv_out = zero(nn.Conv2d(self.widths[1], out_channels * patch**2, 3, padding=1))
        width, told = style.emb_width, "level" in self.required
        self.level = LevelEmbedding(width // 4, width) if told else None

    def _build(self, blocks: int, style: Style) -> None:
        """Builds the way up; each stage also reads a map that the way down left behind."""
        self.up = nn.ModuleList()
        skips, h = list(self.skips), self.widths[-1]
        for i in reversed(range(len(self.attend))):
            width = self.widths[i + 1]
            for j in range(blocks + 1):
                double = i > 0 and j == blocks
                self.up.append(
                    Stage(h + skips.pop(), width, style, attend=self.attend[i], double=double)
                )
                h = width

    def forward(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **conditions: Tensor
    ) -> Tensor:
        """Returns the raw output for noisy images.

        Args:
            x_t: Images (B, in_channels, H, W).
            t: Times (B,) in 1 … T, integers or floats.
            label: Classes (B,) int64 in 0 … num_classes; None for ∅ everywhere.
            **conditions: What `read` returned; a stream that is missing is ∅ everywhere.

        Returns:
            Output (B, out_channels, H, W), exactly 0 at initialisation.
        """
        sources, pooled = (None, 0.0) if self.streams is None else self.streams(conditions, x_t)
        level = 0.0
        if self.level is not None and "level" in conditions:
            level = self.level(conditions["level"])
        emb = F.silu(self.embedding(t, label) + level + pooled)
        planes = [one.planes(x_t, conditions) for one in self.conditioners[: len(self.inputs)]]
        seen = torch.cat([x_t, *planes], dim=1) if planes else x_t
        h, skips = self.encode(seen, emb, sources)
        return self.decode(h, skips, emb, sources)

    def decode(
        self,
        h: Tensor,
        skips: list[Tensor],
        emb: Tensor,
        sources: Mapping[str, Source] | None,
    ) -> Tensor:
        """Returns the raw output of the middle's h and the maps that the way down left behind."""
        for layer in self.up:
            h = self.run(layer, torch.cat([h, skips.pop()], dim=1), emb, sources)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)
