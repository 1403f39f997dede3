"""Trained networks, fixed, that others are built upon: the base of a ControlNet, its branches."""

from torch import nn

from diffusion.denoiser import LockedNetwork
from diffusion.networks import ControlNet, Hint, Stream, TextTransformer, UNet
from diffusion.networks.control.control_net import Branch, LockedBranch
from diffusion.networks.locked import Locked
from diffusion.systems.diffusion import Diffusion

BASE, CONTROL = "model.network.base", "model.network.controls"


class TrainedNetwork(LockedNetwork):
    """The network of a `Diffusion` from its checkpoint, locked, with the averaged weights.

    It is read at once, so that a wrong path is known before anything is trained.

    Args:
        checkpoint: The file, or an exported folder.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """

    def __init__(self, checkpoint: str, trust: bool = False) -> None:
        module = trained_diffusion(checkpoint, trust, BASE)
        super().__init__(module.denoiser, module.spec)

    @staticmethod
    def unread() -> Locked:
        """Returns a small one without a file, to see what others would be built upon it."""
        return Locked(_small())


class TrainedControl(LockedBranch):
    """A branch of the `ControlNet` of a checkpoint, locked, with the averaged weights.

    Args:
        checkpoint: The file, or an exported folder.
        control: Which one; not needed if there is one only.
        trust: Whether you made it, so that all the classes it names may be made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else, or has no such control.
    """

    def __init__(self, checkpoint: str, control: str | None = None, trust: bool = False) -> None:
        network = trained_diffusion(checkpoint, trust, CONTROL).denoiser.network
        if not isinstance(network, ControlNet):
            kind = type(network).__name__
            raise ValueError(f"{CONTROL}: {checkpoint} is of a {kind}; expected a ControlNet's")
        if network.decoder is not None:
            raise ValueError(
                f"{CONTROL}: {checkpoint} has a decoder of its own; expected the base's"
            )
        names = list(network.branches)
        name = names[0] if control is None and len(names) == 1 else control
        if name not in names:
            raise ValueError(f"{CONTROL}.control: {name}; expected one of {names}")
        branch = network.branches[name]
        branch = branch.base if isinstance(branch, Locked) else branch
        assert isinstance(branch, Branch)
        super().__init__(branch, network.base.mark)

    @staticmethod
    def unread() -> LockedBranch:
        """Returns a small one without a file, to see what others would be built upon it."""
        return LockedBranch(Branch(_small(), Hint()), Locked(_small()).mark)


def trained_diffusion(checkpoint: str, trust: bool, key: str) -> Diffusion:
    """Returns the model of a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """
    try:
        return Diffusion.load_from_checkpoint(checkpoint, trust=trust, key=f"{key}.checkpoint")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} (where it is now: --{key}.checkpoint, or moved= in Python)"
        ) from None


def _small() -> UNet:
    """Returns a network that reads texts, whose weights are the same every time."""
    text = {"text": Stream(TextTransformer(8, depth=1, heads=1, length=2, rows=2), pooled=False)}
    made = UNet(8, in_channels=1, channels=8, multipliers=[1], attention=[], blocks=1, streams=text)
    for weight in made.parameters():
        nn.init.zeros_(weight)
    return made
