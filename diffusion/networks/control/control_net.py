"""ControlNet (Zhang et al. 2023, https://arxiv.org/abs/2302.05543)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from diffusion.networks.base import Network
from diffusion.networks.conditioning.base import distinct
from diffusion.networks.conditioning.control_map import ControlMap
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.networks.control.hint_encoder import Hint, HintEncoder
from diffusion.networks.locked import Locked
from diffusion.networks.unet.style import zero
from diffusion.networks.unet.unet import UNet

DEPTH = 12  # residuals before the middle's in the paper's network
DECODER = ("up", "norm_out", "conv_out", "input_scale")
ENCODER = ("embedding", "conv_in", "down", "middle", "streams", "level")


class Branch(nn.Module):
    """Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2): a trainable copy of a UNet's encoder and middle (eq. 4).

    Z are convolutions whose weights start at zero, so that all residuals start at zero.

    Args:
        base: The UNet; its text encoders are shared, everything else is copied.
        hint: What is known of the control c.
    """

    def __init__(self, base: UNet, hint: Hint) -> None:
        super().__init__()
        self.encoder = part_of(base, without=DECODER)
        if hint.start == "noise":
            shuffle(self.encoder)
        self.control, self.hint = hint, HintEncoder(hint, base.widths[0], base.patch)
        maps = [*base.skips, base.widths[-1]]
        self.zeros = nn.ModuleList(zero(nn.Conv2d(width, width, 1)) for width in maps)

    def forward(
        self,
        control: Tensor,
        seen: Tensor,
        encodings: Mapping[str, Encoding],
        t: Tensor,
        label: Tensor | None,
        conditions: Mapping[str, Tensor],
    ) -> list[Tensor]:
        """Returns what is added to each map that the way down left behind, and to the middle's."""
        emb, sources = self.encoder.embed(encodings, t, label, conditions)
        h, skips = self.encoder.encode(seen, emb, sources, self.hint(control.to(seen)))
        return [layer(x) for layer, x in zip(self.zeros, [*skips, h])]


class LockedBranch(Locked, Hint):
    """What is known of a control, and a trained branch, neither trained further nor saved.

    Args:
        branch: The branch.
        mark: That of the base it was trained with, see `Locked`.
    """

    def __init__(self, branch: Branch, mark: str) -> None:
        Locked.__init__(self, branch)
        known = branch.control
        Hint.__init__(self, known.channels, known.widths, known.start)
        self.trained_with = mark


class ControlNet(Network):
    """y = F(x; Θ) + Z(F(x + Z(c; Θ_z1); Θ_c); Θ_z2) of each map that the decoder reads (eq. 4).

    The base stays as it is, in evaluation; only what is added to it is trained, averaged and saved.
    Before training, it draws what the base draws.

    Args:
        base: A trained `UNet`, locked, such as `TrainedNetwork`.
        controls: What is known of each control, by the name of its condition, perhaps with a
            trained branch, as in `TrainedControl`; the residuals of several are added.
        unlocked: "decoder" also trains a copy of the base's decoder (the paper's code: sd_locked
            false); None nothing of the base.
        checkpointing: As for `Encoder`, whatever the base was trained with.

    Raises:
        ValueError: If the base is no UNet, there is no control, or a branch was trained with
            another base.
    """

    def __init__(
        self,
        base: Locked,
        controls: dict[str, Hint],
        unlocked: Literal["decoder"] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        network = base.base
        if not isinstance(network, UNet):
            raise ValueError(f"network.base: {type(network).__name__}; expected a UNet")
        if not controls:
            raise ValueError("network.controls: {}; expected at least one, by name")
        network.checkpointing = checkpointing
        self.base, self.branches = base, nn.ModuleDict()
        for name, given in controls.items():
            ready = isinstance(given, LockedBranch)
            if ready and given.trained_with != base.mark:
                raise ValueError(
                    f"network.controls.{name}: trained with {given.trained_with}; expected "
                    f"{base.mark}, as network.base has it"
                )
            self.branches[name] = given if ready else Branch(network, given)
        self.decoder = part_of(network, without=ENCODER) if unlocked else None
        self.maps = [ControlMap(name, given.channels) for name, given in controls.items()]
        self.conditioners = distinct([*network.conditioners, *self.maps])
        self.in_channels, self.out_channels = network.in_channels, network.out_channels
        self.image_size, self.factor = network.image_size, network.factor
        self.num_classes, self.T = network.num_classes, network.T

    @property
    def network(self) -> UNet:
        """The base."""
        assert isinstance(self.base.base, UNet)
        return self.base.base

    def forward(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **conditions: Tensor
    ) -> Tensor:
        """Returns the base's output, controlled; see `UNet.forward`.

        Raises:
            ValueError: If a control is missing, or of another shape.
        """
        base = self.network  # of whose encoder no gradient is kept, as nothing in it wants one
        texts, seen = base.encodings(x_t, conditions), base.see(x_t, conditions)
        emb, sources = base.embed(texts, t, label, conditions)
        h, skips = base.encode(seen, emb, sources)
        maps = [*skips, h]
        for one in self.maps:
            if (control := one.control(conditions, x_t)) is not None:
                added = self.branches[one.name](control, seen, texts, t, label, conditions)
                factors = conditions.get(one.strength)
                maps = [a + b for a, b in zip(maps, scaled_residuals(added, factors))]
        decoder = base if self.decoder is None else self.decoder
        return decoder.decode(maps[-1], maps[:-1], emb, x_t, sources)


def scaled_residuals(residuals: Sequence[Tensor], strength: Tensor | None) -> Sequence[Tensor]:
    """Returns s r^(12 (1 − i/n)) times residual i of 0 … n, s and r of each sample (B, 2)."""
    if strength is None:
        return residuals
    s, r = strength[:, :1], strength[:, 1:]
    places = torch.arange(len(residuals), device=s.device) / (len(residuals) - 1)
    factors = s * r ** (DEPTH * (1 - places))
    return [x * f.to(x.dtype)[:, None, None, None] for x, f in zip(residuals, factors.unbind(1))]


def part_of(network: UNet, without: Sequence[str]) -> UNet:
    """Returns a trainable copy of a UNet that lacks some of its parts, and its text encoders."""
    shared = [] if network.streams is None else list(network.streams.encoders.values())
    part = copy.deepcopy(network, {id(encoder): encoder for encoder in shared})
    if part.streams is not None:
        part.streams.encoders.clear()
    for name in without:
        setattr(part, name, None)
    return part.requires_grad_(True).train()


@torch.no_grad()
def shuffle(network: nn.Module) -> None:
    """Puts the numbers of each weight into random order: noise of the same size."""
    for weight in network.parameters():
        order = torch.randperm(weight.numel(), device=weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))
