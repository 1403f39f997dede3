"""A trained network that is not trained on: what is added to it is all that checkpoints hold."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.common.hashing import weights_digest

MARK = re.compile(r"^(.*\.)(base_[0-9a-f]{16})$", re.MULTILINE)


class Locked(nn.Module):
    """Calls a base network, whose weights are neither trained, averaged nor saved.

    Its state is one empty tensor, whose name has the digest of the base's weights: with another
    base, a checkpoint is of another model, and refused.

    Args:
        base: The network, with its trained weights.

    Attributes:
        mark: "base_" and the digest.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base.eval().requires_grad_(False)
        self.mark = f"base_{weights_digest(base.state_dict())}"
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_back)

    def train(self, mode: bool = True) -> "Locked":
        """Leaves the base in evaluation."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the base does."""
        return self.base(*args, **kwargs)

    @staticmethod
    def unread() -> "Locked":
        """Returns one that reads no file, in place of one that does, see `check_network`."""
        raise NotImplementedError


class FromFile:
    """What reads trained weights from a file while it is made, which `check_network` lets it do."""


def check_bases(mine: Iterable[str], saved: Iterable[str], file: str) -> None:
    """Refuses a state that was trained with another base.

    Args:
        mine: The names of a model's tensors.
        saved: Those of a file.
        file: What errors call it.

    Raises:
        ValueError: If a base differs.
    """
    found, wanted = (dict(MARK.findall("\n".join(names))) for names in (mine, saved))
    for at, digest in found.items():
        if at in wanted and wanted[at] != digest:
            key = re.sub(r"^(denoiser\.)?(.*?)(\.tower)?\.$", r"model.\2", at)
            raise ValueError(
                f"{file} was trained with {wanted[at]} as {key}, this one is {digest}; expected "
                f"the same weights (--{key}.checkpoint says where they are)"
            )


def _leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    """Replaces the base's weights by their digest."""
    assert isinstance(module, Locked)
    for name in [name for name in state if name.startswith(f"{prefix}base.")]:
        del state[name]
    state[prefix + module.mark] = torch.empty(0)


def _put_back(
    module: nn.Module,
    state: dict[str, Tensor],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    missing: list[str],
    *_more: Any,
) -> None:
    """Gives the base its own weights; without their digest, that is missing."""
    assert isinstance(module, Locked)
    if state.pop(prefix + module.mark, None) is None:
        missing.append(prefix + module.mark)
    state.update({f"{prefix}base.{k}": v for k, v in module.base.state_dict().items()})
