"""InstantID (Wang et al. 2024, https://arxiv.org/abs/2401.07519)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from diffusion.networks.adapter.ip_adapter import Conditions, IPAdapter
from diffusion.networks.conditioning.base import distinct
from diffusion.networks.conditioning.control_map import ControlMap
from diffusion.networks.conditioning.token_encoder import Encoding, TokenEncoder
from diffusion.networks.control.control_net import Branch, scaled_residuals
from diffusion.networks.control.hint_encoder import Hint
from diffusion.networks.locked import Locked
from diffusion.spec import DataSpec


class InstantID(IPAdapter):
    """An `IPAdapter` of an identity, and IdentityNet, a ControlNet of five key points.

    IdentityNet is a trainable copy of the base's encoder and middle that reads the picture of the
    points, and the identity's tokens in the place of the text's, by the copy's own keys and values:
    it knows nothing of the text (the authors' code, section 3.3). λ of the adapter is
    `ImageStrength`, the strength of IdentityNet `ControlStrength`; both are 0.8 in the authors'
    code when drawing, and 1 in training. Before training, and at strength 0, IdentityNet adds 0.

    Args:
        base: As for `IPAdapter`, like all that are not listed here.
        identity: Such as `ResampledIdentity`; its tokens are as wide as those of the base's text.
        pose: What is known of the picture of the points.
        control: The name of its condition.
        name: Of the identity's condition.
        stream: The base's stream of text.
        checkpointing: As for `Encoder`.
    """

    def __init__(
        self,
        base: Locked,
        identity: TokenEncoder,
        pose: Hint,
        control: str = "pose",
        name: str = "identity",
        stream: str = "text",
        checkpointing: bool = False,
    ) -> None:
        super().__init__(base, identity, name, stream, checkpointing)
        self.branch = Branch(self.network, pose)
        assert self.branch.encoder.streams is not None
        self.branch.encoder.streams.pooled.clear()  # a text's
        self.map = ControlMap(control, pose.channels)
        self.conditioners = distinct([*self.conditioners, self.map])

    def check(self, spec: DataSpec, T: int | None = None, key: str = "model.network") -> None:
        """See `Network`; also that IdentityNet can read the tokens."""
        super().check(spec, T, key)
        if not self.same:
            width = self.streams.encoders[self.stream].width
            raise ValueError(
                f"{key}.identity.width: {self.identity.width}; expected {width}, as the tokens of "
                "the base's text, in whose place IdentityNet reads them"
            )

    def added(
        self, read: Encoding, seen: Tensor, t: Tensor, label: Tensor | None, cond: Conditions
    ) -> Sequence[Tensor] | None:
        """Returns what IdentityNet adds to the maps that the decoder reads; None without points."""
        if (control := self.map.control(cond, seen)) is None:
            return None
        texts = {self.stream: replace(read, pooled=None)}
        found = self.branch(control, seen, texts, t, label, cond)
        return scaled_residuals(found, cond.get(self.map.strength))
