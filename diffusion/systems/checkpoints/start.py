"""Where training starts: from the weights of another model (fine-tuning)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from diffusion.common.weights import read, state
from diffusion.networks.unet.unet import UNet
from diffusion.spec import DataSpec
from diffusion.systems.checkpoints.contents import check_tensors, same_shape

KEY = "model.start"
WIDENED = "conv_in.weight"
FOLDED = {WIDENED: 1, "conv_out.weight": 0, "conv_out.bias": 0}  # and where patches are channels
STREAM = re.compile(r"\.(?:streams\.(?:encoders|norms|pooled)|keys_values)\.(\w+)\.")


@torch.no_grad()
def begin(module: nn.Module, path: Path) -> DataSpec | None:
    """Copies a checkpoint's averaged weights into a module.

    Both must have the same tensors. A network's first convolution may read more channels here, as
    an `Inpainter`'s does: it then has zeros for the new ones, so that they count for nothing until
    they are trained (Nichol et al. 2021, "Image inpainting"). And it may have streams of tokens
    that the other has not, or has with another encoder: all tensors of such a stream stay as they
    are, which is said. And its patches may be k times as wide, for images k times as large: it then
    begins with the means of k x k pixels, net(x) = up_k(other(down_k(x))), which is said, too. An
    `input_skip` that the other has not is 0 at first.

    Args:
        module: What will be trained.
        path: A checkpoint of this project.

    Returns:
        What the other model was trained on, if its checkpoint says so.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else, or of a model with other tensors.
    """
    content = read(path, KEY)
    saved, mine = state(content, KEY, path), module.state_dict()
    spec = DataSpec.read(content)
    saved = _of_wider_patches(module, saved, path)
    if anew := _new_streams(mine, saved):
        rank_zero_info(f"{KEY}: {path} has other streams; {', '.join(sorted(anew))} start anew")
        mine, saved = _without(mine, anew), _without(saved, anew)
    check_tensors(mine, saved, f"{KEY}: {path}", _fits)
    for name, here in mine.items():
        there = saved[name]
        if here.shape == there.shape:
            here.copy_(there)
        else:
            here.zero_()[:, : there.shape[1]] = there
    return spec


def _of_wider_patches(
    module: nn.Module, saved: Mapping[str, Tensor], path: Path
) -> Mapping[str, Tensor]:
    """Returns a file's tensors, but for convolutions of patches, which fit k times as wide ones.

    An input skip that the file has not is what it is here, zero.

    Channel c p² + row p + column of `pixel_unshuffle` is read by W[c, row // k, column // k] / k²
    and written by W[c, row // k, column // k].
    """
    found = dict(saved)
    for name, net in module.named_modules():
        last = saved.get(f"{name}.conv_out.weight")
        if not isinstance(net, UNet) or last is None:
            continue
        if net.input_scale is not None:
            zeros = {f"{name}.input_scale.{k}": x for k, x in net.input_scale.state_dict().items()}
            found = {**zeros, **found}
        k = math.isqrt(net.conv_out.out_channels // len(last))
        if k < 2 or k * k * len(last) != net.conv_out.out_channels or net.patch % k:
            continue
        side = net.patch // k
        parts = {f"{name}.{key}": dim for key, dim in FOLDED.items()}
        if any(p not in saved or saved[p].shape[dim] % side**2 for p, dim in parts.items()):
            continue  # of another model, as `check_tensors` says
        rank_zero_info(f"{KEY}: {path} has patches of {side}; here {net.patch}, from means of {k}")
        for part, dim in parts.items():
            x = saved[part].unflatten(dim, (-1, side, side))
            x = x.repeat_interleave(k, dim + 1).repeat_interleave(k, dim + 2)
            found[part] = x.flatten(dim, dim + 2) / (k * k if dim else 1)
    return found


def _fits(name: str, here: Tensor, there: Tensor) -> bool:
    """Whether a tensor can be copied, perhaps as the first of more input channels."""
    if same_shape(name, here, there):
        return True
    wider = here.ndim == there.ndim == 4 and here.shape[1] > there.shape[1]
    same = (here.shape[0], *here.shape[2:]) == (there.shape[0], *there.shape[2:])
    return name.endswith(WIDENED) and wider and same


def _new_streams(mine: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> set[str]:
    """Returns the streams of a model of which another has not all tensors in the same shapes."""
    found: dict[str, bool] = {}
    for name, here in mine.items():
        if stream := STREAM.search(name):
            same = name in saved and saved[name].shape == here.shape
            found[stream[1]] = found.get(stream[1], True) and same
    return {stream for stream, same in found.items() if not same}


def _without(tensors: Mapping[str, Tensor], streams: set[str]) -> dict[str, Tensor]:
    """Returns the tensors that are part of none of the streams."""
    found = ((name, STREAM.search(name)) for name in tensors)
    return {name: tensors[name] for name, stream in found if not stream or stream[1] not in streams}
