"""What can be known to fail before training starts."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from diffusion.condition import Forget, named_after
from diffusion.data import Images
from diffusion.data.controls.base import check_control
from diffusion.data.identities.base import Identities
from diffusion.denoiser import LockedNetwork
from diffusion.guidance.gradient import check_process
from diffusion.networks import ControlMap, Network, identity_tokens, image_embeddings
from diffusion.objective import Objective
from diffusion.parameterization import Parameterization
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.step import Step


def check_forgetting(network: Network, p_uncond: float | Sequence[Forget]) -> None:
    """Refuses to forget what the network has no ∅ for.

    Raises:
        ValueError: If a probability is out of its range, or a condition has no ∅.
    """
    key = "model.p_uncond"
    if isinstance(p_uncond, int | float):
        if not 0 <= p_uncond <= 1:
            raise ValueError(f"{key}: {p_uncond}; expected 0 … 1")
        lacking = set(network.conditions or ()).difference(network.required, network.null)
        if p_uncond and lacking:
            raise ValueError(
                f"{key}: {p_uncond}; expected 0, as the network has no ∅ for {min(lacking)} "
                "(null_class: true gives it one)"
            )
        return
    for row in p_uncond:
        if not 0 <= row.p <= 1:
            raise ValueError(f"{key}.p: {row.p}; expected 0 … 1")
        unknown = [name for name in row.keys if not named_after(name, network.null)]
        if unknown or not row.keys:
            raise ValueError(
                f"{key}.keys: {unknown}; expected some conditions with a ∅, of {list(network.null)}"
            )
    if (total := sum(row.p for row in p_uncond if row.exclusive)) > 1 + 1e-9:
        raise ValueError(f"{key}: {total} for all exclusive rows; expected at most 1")


def forgotten(network: Network, p_uncond: Any) -> set[str]:
    """Returns the conditions that training forgets now and then.

    Args:
        network: The network.
        p_uncond: What training was told, as an object or as a checkpoint has it.
    """
    if isinstance(p_uncond, int | float):
        return set(network.null) if p_uncond else set()
    rows = [row if isinstance(row, Forget) else Forget(**row) for row in p_uncond]
    names = [name for row in rows if row.p for name in row.keys]
    return {key for name in names for key in named_after(name, network.null)}


def check_forgotten(sampler: Sampler, trained: Mapping[str, Any], network: Network) -> None:
    """Refuses to draw with ∅ what was not trained with it, or has none.

    Args:
        sampler: What draws.
        trained: The settings of the training, with `p_uncond`; `start` if it began with the
            weights of another model, of which nothing is known.
        network: What was trained.

    Raises:
        ValueError: If a guidance asks for it.
    """
    for guide in sampler.guidance:
        kind, wanted = type(guide).__name__, guide.forgets(network.null)
        p_uncond = trained.get("p_uncond")
        if p_uncond is None or trained.get("start") is not None:
            continue
        if never := [key for key in wanted if key not in forgotten(network, p_uncond)]:
            raise ValueError(
                f"model.p_uncond: {p_uncond}; expected above 0 in training, as {kind} draws with "
                f"∅ for {never[0]}, which was never trained (scale 1 does without)"
            )


def check_base(network: nn.Module, process: Process, parameterization: Parameterization) -> None:
    """Refuses to build on networks that were trained as denoisers of another kind.

    Raises:
        ValueError: If the process or the parameterisation differs.
    """
    for name, part in network.named_modules():
        if isinstance(part, LockedNetwork):
            check_process(f"model.network.{name}", part.process, process)
            was, now = (type(x).__name__ for x in (part.parameterization, parameterization))
            if was != now:
                raise ValueError(
                    f"model.parameterization: {now}; expected {was}, as model.network.{name} was "
                    "trained with"
                )


def check_variance(network: Network, parts: Mapping[str, Objective | Step]) -> None:
    """Refuses a learned variance where the network is known not to put one out.

    Args:
        network: What is trained.
        parts: What may want it, by its key.

    Raises:
        ValueError: If one of them wants it to be learned.
    """
    channels, out = network.in_channels, network.out_channels
    for key, part in parts.items():
        if part.variance == "learned" and channels and out != 2 * channels:
            raise ValueError(
                f"{key}: {type(part).__name__} uses a learned variance; expected "
                f"model.network.out_channels {2 * channels}, it is {out}"
            )


def check_target(
    process: Process, parameterization: Parameterization, objective: Objective
) -> None:
    """Refuses to regress where there is no target, or where the process would make it easy.

    Raises:
        ValueError: If the objective is no bound, and the process or the parameterisation needs one.
    """
    needing = [part for part, needs in (
        (process, process.learned), (parameterization, parameterization.binary)
    ) if needs]  # fmt: skip
    if needing and objective.regresses:
        raise ValueError(
            f"model.objective: {type(objective).__name__}; expected VariationalBound, the only "
            f"loss for {type(needing[0]).__name__}"
        )


def check_told(conditions: Collection[str] | None, data: Images) -> None:
    """Refuses to train a network that is told of mirror images, when there are none.

    Args:
        conditions: That the network reads.
        data: The data module.

    Raises:
        ValueError: If the data has no mirror images.
    """
    if "mirrored" in (conditions or ()) and not data.flip:
        raise ValueError("data.flip: false; expected true, as the network reads 'mirrored'")


def check_given(stages: Sequence[Any], data: Images) -> None:
    """Refuses to continue from pictures that are not there, and pictures that nothing looks at.

    Args:
        stages: The `Diffusion` modules that draw, one after the other.
        data: The data module.

    Raises:
        ValueError: If what a sampler needs is not in the data's requests, or the other way round.
    """
    needs = frozenset[str]().union(*(stage.sampler.needs for stage in stages))
    read = needs.union(*(stage.denoiser.conditions or () for stage in stages))
    unread = {key for s in stages for g in s.sampler.guidance for key in g.hands_on} - read
    if unread:
        raise ValueError(
            f"model.sampler.guidance: it sets {min(unread)}; expected a network that reads it"
        )
    strength = min(stage.sampler.strength for stage in stages)
    if missing := {"known", "mask"} & needs:
        missing -= set(data.on_after_batch_transfer(data.request([0]), 0))
    guides = [guide for stage in stages for guide in stage.sampler.guidance]
    asking = [type(guide).__name__ for guide in guides if "known" in guide.needs]
    why = f"for {asking[0]}" if asking else f"as sampler.strength is {strength}"
    if "known" in missing:
        raise ValueError(f"data.edit: null; expected a picture or a folder of pictures, {why}")
    if "mask" in missing:
        raise ValueError("data.mask: null; expected a picture or x0,y0,x1,y1 for Inpaint")
    if data.mask is not None and "mask" not in read:
        raise ValueError(
            f"data.mask: {data.mask!r}; expected null, or Inpaint in sampler.guidance, or an "
            "Inpainter network, as nothing looks at it"
        )
    if data.edit is not None and data.mask is None and strength == 1 and not asking:
        also = "what to repaint in data.mask, or " if "mask" in read else ""
        raise ValueError(f"data.edit: {data.edit!r}; expected {also}sampler.strength below 1")
    check_controls(stages, data)
    check_image_prompt(stages, data)
    check_identity(stages, data)


def check_controls(stages: Sequence[Any], data: Images) -> None:
    """Refuses controls that nothing reads, and networks whose controls the data has not.

    Args:
        stages: The `Diffusion` modules that draw, one after the other.
        data: The data module.

    Raises:
        ValueError: If a control is missing, has other channels or values, or is not looked at.
        FileNotFoundError: If the one given is not there.
    """
    every = [one for stage in stages for one in stage.denoiser.contract.conditioners]
    maps = [one for one in every if isinstance(one, ControlMap)]
    if data.control is not None and not maps:
        raise ValueError(f"data.control: {data.control!r}; expected null, as nothing reads it")
    there = data.control_channels
    given = {key for ask in data.picture_asks() for key in ask.keys}
    for one in maps:
        name, channels = one.name, one.planes_of
        if there.get(name) != channels:
            raise ValueError(
                f"data.controls: {there}; expected '{name}' of {channels} channels, as the network "
                "reads it"
            )
        if name in data.controls:
            check_control(name, data.controls[name], data.shape)
        if name not in given:
            raise ValueError(
                f"data.control: null; expected a picture, or a folder of pictures, as '{name}', "
                "as prompts come without; or data.pose, if it is the points of a face"
            )


def check_image_prompt(stages: Sequence[Any], data: Images) -> None:
    """Refuses a picture that nothing reads, and says where samples come without one.

    Args:
        stages: The `Diffusion` modules that draw, one after the other; those behind the first read
            what the one before draws.
        data: The data module.

    Raises:
        ValueError: If nothing reads it, or it is no picture.
        FileNotFoundError: If it is not there.
    """
    reads = image_embeddings(stages[0].denoiser.contract.conditioners)
    if data.image_prompt and not reads:
        raise ValueError(
            f"data.image_prompt: {data.image_prompt!r}; expected null, as the network reads no "
            "ImageEmbedding, or one that a stage draws"
        )
    if data.prompted is None and reads:
        rank_zero_info(
            f"data.image_prompt: {data.image_prompt}; samples have no picture to be like, and are "
            "drawn by their texts or classes alone (true: of the real pictures that have these)"
        )


def check_identity(stages: Sequence[Any], data: Images) -> None:
    """Refuses to draw nobody, and persons or poses that nothing looks at.

    Args:
        stages: The `Diffusion` modules that draw, one after the other.
        data: The data module.

    Raises:
        ValueError: If a picture of a person is missing, or is not looked at.
        FileNotFoundError: If the one given is not there.
    """
    reading = [one for s in stages for one in identity_tokens(s.denoiser.contract.conditioners)]
    given = {key for ask in data.picture_asks() for key in ask.keys}
    who = data.identity if isinstance(data, Identities) else None
    if who is not None and not reading:
        raise ValueError(f"data.identity: {who!r}; expected null, as the network reads nobody")
    for name in reading:
        if not isinstance(data, Identities):
            raise ValueError(
                f"data: {type(data).__name__} does not say who is seen; expected data of persons, "
                f"such as Avatars or IdentityFolder, for a network that reads '{name}'"
            )
        if name not in given:
            raise ValueError(
                f"data.identity: null; expected a picture, or a folder of pictures, of who is to "
                f"be drawn, as '{name}', as prompts come without"
            )
