# pyright: strict
"""What a network is: network(x_t, t, **conditions), and what is known of it before it is called."""

import inspect
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffusion.networks.conditioning.base import Conditioner
from diffusion.spec import Batch, DataSpec

NO_CONDITION = ("image", "index")  # what else a batch has


class Network(nn.Module, ABC):
    """A network of x_t (B, C, ...), of times t (B,) in 1 … T, and of conditions by name.

    All attributes but the conditioners are compared with the data and the method before anything
    is trained or drawn; those at their defaults are not.

    Attributes:
        in_channels: C, the first axis of a sample.
        out_channels: Of the output; twice C if a variance is learned.
        image_size: H = W of the images that it is for.
        fixed: Whether it takes no other size.
        factor: What the sides of an image have to be multiples of.
        num_classes: K classes that it knows, None without labels.
        T: The last time that it knows, None for any.
        conditioners: Where its conditions come from. They are no part of the network by being
            listed here: what of them has weights is also an attribute of its own.
    """

    in_channels: int = 0
    out_channels: int = 0
    image_size: int = 0
    fixed: bool = False
    factor: int = 1
    num_classes: int | None = None
    T: int | None = None
    conditioners: Sequence[Conditioner] = ()

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the output for (x_t, t, **conditions)."""

    @property
    def conditions(self) -> tuple[str, ...] | None:
        """The names of the conditions that `forward` takes; None for any."""
        return tuple(key for one in self.conditioners for key in one.keys)

    @property
    def required(self) -> tuple[str, ...]:
        """Those of them that are never forgotten."""
        return tuple(key for one in self.conditioners for key in one.required)

    @property
    def null(self) -> Mapping[str, float | Tensor]:
        """∅ of each condition that can be forgotten, for one sample."""
        every: list[Any] = [one.null for one in reversed(self.conditioners)]  # iterated backwards
        return ChainMap(*every)

    def read(self, batch: Batch, train: bool = False) -> dict[str, Tensor]:
        """Returns the conditions that are in a batch, or can be made of it; see `Conditioner`."""
        return {k: v for one in self.conditioners for k, v in one.read(batch, train).items()}

    def resized(self, batch: Batch, size: tuple[int, int]) -> dict[str, Any]:
        """Returns a batch whose conditions are for images of another size (H, W)."""
        for one in self.conditioners:
            batch = one.resized(batch, size)
        return dict(batch)

    def check_size(self, x_t: Tensor) -> None:
        """Refuses images of another size, if it takes no other.

        Raises:
            ValueError: If they are not of `image_size`.
        """
        if self.fixed and x_t.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"network.image_size: {self.image_size}; expected {tuple(x_t.shape[2:])}, as the "
                "images are"
            )

    def check(self, spec: DataSpec, T: int | None = None, key: str = "model.network") -> None:
        """Refuses data, and times, that do not fit.

        Args:
            spec: The data.
            T: The process's last time, None for clean data.
            key: What errors call the network.

        Raises:
            ValueError: If classes, channels, size or times differ, or weights of a conditioner
                would not be trained.
        """
        (channels, *sides), classes, known = spec.shape, spec.num_classes, self.num_classes
        name, size = spec.name, " x ".join(map(str, sides))
        if classes and known and classes > known:
            raise ValueError(
                f"{key}.num_classes: {known}; expected at least the {classes} classes of {name}"
            )
        if self.in_channels not in (0, channels):
            raise ValueError(
                f"{key}.in_channels: {self.in_channels}; expected the {channels} of {name}"
            )
        if any(side % self.factor for side in sides):
            raise ValueError(
                f"data: images of {name} are {size}; expected sides that the network's depth "
                f"divides, multiples of {self.factor}"
            )
        if self.fixed and any(side != self.image_size for side in sides):
            raise ValueError(
                f"{key}.image_size: {self.image_size}; expected {sides[-1]}, as {name} is {size}"
            )
        if T is not None and self.T not in (None, T):
            raise ValueError(f"{key}.T: {self.T}; expected {T}, as the process has it")
        trained = set(self.parameters())
        for one in self.conditioners:
            if not trained.issuperset(one.parameters()):
                raise ValueError(
                    f"{key}: the weights of {type(one).__name__} are in `conditioners` only; "
                    "expected it as an attribute of the network too"
                )


class ImageTower(Network):
    """A network of pictures that gives one vector, and the states of parts of the picture.

    Attributes:
        state_width: Size of a state.
    """

    state_width: int

    @abstractmethod
    def look(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the vectors (B, out_channels) of pictures, and states (B, N, state_width).

        Args:
            x_t: Pictures (B, in_channels, H, W).
            t: Their times, (B,).

        Raises:
            ValueError: If it is for one size, and they have another.
        """

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the vectors, see `look`."""
        return self.look(x_t, t)[0]


class Plain(Network):
    """What is known of a module that is no `Network`: those of its attributes that one has.

    It takes the conditions that its attribute `null` has a ∅ for, or else those that its `forward`
    names behind x_t and t, which are all if that takes `**kwargs`. They are in a batch as they are.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, so that it is no part of this
        names = ("null", "in_channels", "out_channels", "image_size", "fixed", "factor")
        found = {name: getattr(module, name, None) for name in (*names, "num_classes", "T")}
        null = found.pop("null")
        self._conditions = condition_names(module.forward) if null is None else tuple(null)
        self._null: Mapping[str, float | Tensor] = null or {}
        for name, value in found.items():
            if value is not None:
                setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """See `Network`."""
        return self._module[0](*args, **kwargs)

    @property
    def conditions(self) -> tuple[str, ...] | None:
        """See `Network`."""
        return self._conditions

    @property
    def null(self) -> Mapping[str, float | Tensor]:
        """See `Network`."""
        return self._null

    def read(self, batch: Batch, train: bool = False) -> dict[str, Tensor]:
        """See `Network`."""
        every = batch.keys() - {"mirrored"}  # told only to what asks for it by name
        known = every if self._conditions is None else self._conditions
        names = [key for key in batch if key in known and key not in NO_CONDITION]
        return {k: batch[k] for k in names if isinstance(batch[k], Tensor)}


def adapt(module: nn.Module) -> Network:
    """Returns a module as a `Network`: itself, or for any other what is known of it.

    The module itself stays what is called, trained and saved.
    """
    return module if isinstance(module, Network) else Plain(module)


def condition_names(forward: Callable[..., Any]) -> tuple[str, ...] | None:
    """Returns the names of a forward's parameters behind x_t and t; None if it takes any name."""
    parameters = list(inspect.signature(forward).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return tuple(parameter.name for parameter in parameters[2:])
