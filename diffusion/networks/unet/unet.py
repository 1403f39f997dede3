"""The UNet of DDPM (Ho et al. 2020), Improved DDPM (Nichol & Dhariwal 2021), ADM and GLIDE."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.validate import check_counts
from diffusion.networks.conditioning.base import Conditioner, distinct
from diffusion.networks.conditioning.inpainting import Known
from diffusion.networks.conditioning.low_resolution import (
    Augmentation,
    Blur,
    LevelEmbedding,
    LowResolution,
)
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.unet.encoder import Encoder, Stage
from diffusion.networks.unet.style import TokenStyle, zero
from diffusion.networks.unet.token_attention import Source, Stream, Streams


class UNet(Encoder):
    """network(x_t, t, label, **conditions): a UNet with the time in every residual block.

    The defaults are the 35.7 M network of DDPM for CIFAR-10 (its appendix B), parameter for
    parameter. Improved DDPM and ADM are family="openai", scale_shift=True and twice the channels
    at the output, ADM also has resample="block"; configs/ has their published settings.

    Args:
        image_size: As for `Encoder`, like all that are not listed here.
        in_channels: Channels of x_t.
        out_channels: Channels of the output, 2 · in_channels to learn the variance as well;
            None for in_channels.
        streams: Sources of tokens that every layer of attention reads, by name: {"text": …} takes
            the batch's "text"; None for none.
        inputs: Conditioners whose channels are joined to x_t's, in this order: a `LowResolution`
            makes it an upsampler, `Known` one that inpaints.
        skip_scale: What the maps that the way down left behind are multiplied by before the way up
            reads them: 1/√2 in Imagen's Efficient UNet (its appendix B).
        input_skip: Whether the output has s_c(t) x_t, too, with a scale s_c of each channel of a
            patch, by a layer of the embedding that starts at zero. `V` and `Eps` ask for the noise
            of every pixel, and patches of 4 have more pixels than a small network has channels.

    Raises:
        ValueError: If the sizes do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        out_channels: int | None = None,
        streams: dict[str, Stream] | None = None,
        inputs: Sequence[Conditioner] = (),
        skip_scale: float = 1.0,
        input_skip: bool = False,
        **kwargs: Any,
    ) -> None:
        check_counts("network", out_channels=out_channels)
        if input_skip and out_channels not in (None, in_channels):
            raise ValueError(
                f"network.out_channels: {out_channels}; expected {in_channels} with input_skip, "
                "which adds the input to the output"
            )
        streams, joined = streams or {}, [one.channels(in_channels) for one in inputs]
        if 0 in joined:
            raise ValueError(
                f"network.inputs: {type(inputs[joined.index(0)]).__name__}; expected conditioners "
                "that join channels to an image"
            )
        super().__init__(
            image_size=image_size,
            in_channels=in_channels + sum(joined),
            streams=[TokenStyle(k, s.encoder.width, s.route) for k, s in streams.items()],
            **kwargs,
        )
        self.in_channels, self.skip_scale = in_channels, skip_scale
        self.inputs = nn.ModuleList(inputs)
        channels = [n * self.patch**2 for n in (in_channels, *joined)]
        for one, weight in zip(inputs, self.conv_in.weight.data.split(channels, dim=1)[1:]):
            if one.starts_at_zero:
                weight.zero_()
        self.streams = Streams(streams, self.style) if streams else None
        tokens = () if self.streams is None else self.streams.tokens
        self.conditioners = distinct([*inputs, *self.embedding.conditioners, *tokens])
        self.up = self._way_up()
        width, self.out_channels = self.widths[1], out_channels or in_channels
        self.norm_out = self.style.norm(width)
        self.conv_out = zero(nn.Conv2d(width, self.out_channels * self.patch**2, 3, padding=1))
        n = self.conv_out.out_channels
        self.input_scale = zero(nn.Linear(self.style.emb_width, n)) if input_skip else None
        width, told = self.style.emb_width, "level" in self.required
        self.level = LevelEmbedding(width // 4, width) if told else None

    def _way_up(self) -> nn.ModuleList:
        """Returns the stages up; each also reads a map that the way down left behind."""
        up, skips, h = nn.ModuleList(), list(self.skips), self.widths[-1]
        for i in reversed(range(len(self.attend))):
            width = self.widths[i + 1]
            for j in range(self.blocks[i] + 1):
                double = j == self.blocks[i] and (i > 0 or self.resample_first)
                joined = h + skips.pop()
                up.append(Stage(joined, width, self.style, attend=self.attend[i], double=double))
                h = width
        return up

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
        emb, sources = self.embed(self.encodings(x_t, conditions), t, label, conditions)
        h, skips = self.encode(self.see(x_t, conditions), emb, sources)
        return self.decode(h, skips, emb, x_t, sources)

    def see(self, x_t: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Returns x_t and the channels that `inputs` join to it, (B, C + …, H, W)."""
        planes = [one.planes(x_t, conditions) for one in self.conditioners[: len(self.inputs)]]
        return torch.cat([x_t, *planes], dim=1) if planes else x_t

    def encodings(self, x_t: Tensor, conditions: Mapping[str, Tensor]) -> Mapping[str, Encoding]:
        """Returns what the encoders make of each stream."""
        return {} if self.streams is None else self.streams.encodings(conditions, x_t)

    def embed(
        self,
        encodings: Mapping[str, Encoding],
        t: Tensor,
        label: Tensor | None,
        conditions: Mapping[str, Tensor],
    ) -> tuple[Tensor, Mapping[str, Source] | None]:
        """Returns SiLU of the embedding (B, E), and what attention reads of each stream."""
        sources, pooled = (None, 0.0) if self.streams is None else self.streams(encodings)
        level = 0.0
        if self.level is not None and "level" in conditions:
            level = self.level(conditions["level"])
        return F.silu(self.embedding(t, label) + level + pooled), sources

    def decode(
        self,
        h: Tensor,
        skips: Sequence[Tensor],
        emb: Tensor,
        x_t: Tensor,
        sources: Mapping[str, Source] | None = None,
    ) -> Tensor:
        """Returns the output (B, out_channels, H, W) for what `encode` returned of x_t."""
        for layer, skip in zip(self.up, reversed(skips)):
            skip = skip if self.skip_scale == 1 else self.skip_scale * skip
            h = self.run(layer, torch.cat([h, skip], dim=1), emb, sources)
        out = self.conv_out(F.silu(self.norm_out(h)))
        if self.input_scale is not None:
            scale = self.input_scale(emb)[:, :, None, None]
            out = out + scale * F.pixel_unshuffle(x_t, self.patch)
        return F.pixel_shuffle(out, self.patch)


class Upsampler(UNet):
    """network(x_t, t, low_res, label, **tokens): a `UNet` whose input is `LowResolution`.

    Args:
        augmentation: Of the low-resolution image, or None.
        blur: Of some of them in training, or None.
        **kwargs: As for `UNet`.
    """

    def __init__(
        self, augmentation: Augmentation | None = None, blur: Blur | None = None, **kwargs: Any
    ) -> None:
        super().__init__(inputs=[LowResolution(augmentation, blur)], **kwargs)


class Inpainter(UNet):
    """network(x_t, t, known, mask, label, **tokens): a `UNet` whose input is `Known` (GLIDE).

    The weights of the C + 1 new channels start at zero, so that it starts as the UNet whose weights
    it is given (Nichol et al. 2021, "Image inpainting"; https://arxiv.org/abs/2112.10741). m = 0
    everywhere is inpainting without anything known, that is drawing; it is what a batch without
    "mask" means, unless it has an "image" to learn from.

    Args:
        rectangles: As for `Known`.
        hidden: As for `Known`.
        **kwargs: As for `UNet`.
    """

    def __init__(self, rectangles: int = 3, hidden: float = 0.1, **kwargs: Any) -> None:
        super().__init__(inputs=[Known(rectangles, hidden)], **kwargs)
