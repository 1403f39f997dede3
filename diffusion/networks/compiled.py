"""A network compiled in place: its parameters and their names stay as they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Compiled:
    """Calls a network's compiled `forward`, with its hooks around it and not inside.

    The batch is marked as of any size, so that a smaller last one, or the doubled one of
    classifier-free guidance, is no new shape; a batch of one sample is, and so is every other size
    of image.

    Args:
        network: The network.
        **options: Of `torch.compile`.
    """

    def __init__(self, network: nn.Module, **options: Any) -> None:
        self.network = network
        self.forward: Callable[..., Any] = torch.compile(network.forward, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the network does."""
        for x in (*args, *kwargs.values()):
            if isinstance(x, Tensor) and x.ndim:
                torch._dynamo.maybe_mark_dynamic(x, 0)
        self.network.forward = self.forward
        try:
            return self.network._call_impl(*args, **kwargs)
        finally:
            del self.network.forward


def compile_in_place(network: nn.Module, **options: Any) -> None:
    """Compiles a network where it is: what calls, saves, averages or copies it sees the module.

    A copy is not compiled.

    Args:
        network: The network.
        **options: Of `torch.compile`.
    """
    network._compiled_call_impl = Compiled(network, **options)
