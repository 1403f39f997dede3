"""diffusers' DDIMScheduler and DDPMScheduler: the process, the parameterisation and the sampler.

Their times count from 0, ours from 1. Both know the grids "leading", "trailing" and "linspace".
DDPMScheduler goes from each time to the next one of the grid, as our sampler does. DDIMScheduler
goes from t to t − ⌊T / steps⌋ whatever the grid, so only those grids are written for it, and read,
whose times lie that far apart. And DDPMScheduler adds noise wherever t > 0 (from 0), so that with
"fixed_large" and "learned_range" some is left in x_0 unless the last move is from there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.guidance import Dynamic, Static
from diffusion.interop.betas import betas
from diffusion.interop.presets import Settings, of
from diffusion.parameterization import X0, Eps, Parameterization, V
from diffusion.process import Cosine, Linear, Process, ScaledLinear
from diffusion.sampler import Sampler
from diffusion.step import DDIM

PREDICTIONS: dict[str, type[Parameterization]] = {
    "epsilon": Eps,
    "sample": X0,
    "v_prediction": V,
}
VARIANCES = {
    "small": "fixed_small",
    "large": "fixed_large",
    "learned": "learned_range",
}
GRIDS = ("leading", "trailing", "linspace")
CLASSES = ("DDPMScheduler", "DDIMScheduler")
NO_LIMIT = 1e6  # of dynamic thresholds; diffusers wants a number
DDIM_STEPS = 50  # what DDIMPipeline takes unless told otherwise


def settings(config: Mapping[str, Any]) -> Settings:
    """Returns process, parameterisation and sampler for a scheduler_config.json.

    Raises:
        ValueError: If an option has no counterpart.
    """
    kind = config.get("_class_name")
    if kind not in CLASSES:
        raise ValueError(f"scheduler_config.json: _class_name is {kind}; expected one of "
                         f"{', '.join(CLASSES)}, or a --config that says the rest")  # fmt: skip
    for key, value in {"set_alpha_to_one": True, "steps_offset": 0, "clip_sample_range": 1}.items():
        if config.get(key, value) != value:
            raise ValueError(f"scheduler_config.json: {key} is {config[key]}; expected {value}")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"scheduler_config.json: prediction_type is {prediction}; expected one of "
                         f"{', '.join(PREDICTIONS)}")  # fmt: skip
    sampler: Settings = {"guidance": _guidance(config)}
    sampler["spacing"] = config.get("timestep_spacing", "leading")
    if kind == "DDIMScheduler":
        T = len(config.get("trained_betas") or ()) or config.get("num_train_timesteps", 1000)
        steps = min(DDIM_STEPS, T)
        if not _strides(Sampler(DDIM(), steps, spacing=sampler["spacing"]), T):
            raise ValueError(
                f"scheduler_config.json: timestep_spacing is {sampler['spacing']}; expected "
                f"leading, or trailing where {steps} divides T = {T}, as DDIMScheduler steps by "
                "T // steps whatever its grid"
            )
        sampler |= {"step": of("DDIM", eta=0.0), "steps": steps}
    else:
        said = str(config.get("variance_type", "fixed_small")).removesuffix("_log")
        found = [ours for ours, theirs in VARIANCES.items() if theirs == said]
        if not found:
            raise ValueError(f"scheduler_config.json: variance_type is {said}; expected one of "
                             f"{', '.join(VARIANCES.values())}")  # fmt: skip
        sampler["step"] = of("DDPM", variance=found[0])
    return {
        "process": _process(config),
        "parameterization": PREDICTIONS[prediction].__name__,
        "objective": of("Hybrid") if config.get("variance_type") == "learned_range" else "Simple",
        "sampler": sampler,
    }


def _guidance(config: Mapping[str, Any]) -> list[Any]:
    """Returns what keeps x̂_0 in range."""
    if config.get("thresholding"):
        # Their threshold lies between 1 and sample_max_value, by default 1 as well.
        most = config.get("sample_max_value", 1.0)
        if most < 1:
            raise ValueError(f"scheduler_config.json: sample_max_value is {most}; expected ≥ 1")
        if most == 1:
            return ["Static"]
        limit = {} if most >= NO_LIMIT else {"limit": most}
        ratio = config.get("dynamic_thresholding_ratio", 0.995)
        return [of("Dynamic", percentile=ratio, **limit)]
    return ["Static"] if config.get("clip_sample", True) else []


def _process(config: Mapping[str, Any]) -> Settings:
    """Returns the process."""
    T, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    ends = {"beta_1": config.get("beta_start", 1e-4), "beta_T": config.get("beta_end", 0.02)}
    if config.get("trained_betas") is not None:
        found = of("Betas", betas=list(config["trained_betas"]))
    elif kind == "linear":
        found = of("Linear", T=T, **ends)
    elif kind == "scaled_linear":
        found = of("ScaledLinear", T=T, **ends)
    elif kind == "squaredcos_cap_v2":
        found = of("Cosine", T=T)
    else:
        raise ValueError(f"scheduler_config.json: beta_schedule is {kind}; expected linear, "
                         "scaled_linear, squaredcos_cap_v2 or trained_betas")  # fmt: skip
    return of("ZeroTerminal", process=found) if config.get("rescale_betas_zero_snr") else found


def config(
    process: Process, parameterization: Parameterization, sampler: Sampler, variance: bool
) -> dict[str, Any]:
    """Returns the scheduler_config.json with which a pipeline samples as `sampler` does.

    Args:
        process: The forward process.
        parameterization: What the network's output means.
        sampler: Its step, grid and guidance.
        variance: Whether the network puts out a variance too.

    Raises:
        ValueError: If diffusers cannot sample like that.
    """
    prediction = next((k for k, v in PREDICTIONS.items() if type(parameterization) is v), None)
    if prediction is None:
        raise ValueError(f"parameterization: {type(parameterization).__name__}; expected Eps, X0 "
                         "or V, the ones that diffusers knows")  # fmt: skip
    found = {
        "num_train_timesteps": process.T,
        "prediction_type": prediction,
        **_schedule(process),
        **_range(sampler),
        "timestep_spacing": sampler.spacing,
        "steps_offset": 0,
    }
    _check_grid(sampler, process)
    step: Any = sampler.step
    if not isinstance(step, DDIM) or (step.eta not in (0, 1)):
        raise ValueError(f"sampler.step: {type(step).__name__}; expected DDIM with eta 0, or DDPM "
                         "(say so with --config configs/sample/ddim50.yaml)")  # fmt: skip
    if step.eta == 1:
        if variance and step.variance != "learned":
            raise ValueError(f"sampler.step.variance: {step.variance}; expected learned, as "
                             "DDPMPipeline takes the network's other half for it")  # fmt: skip
        last = int(sampler.times(process)[-2])
        if step.variance != "small" and last > 1:
            raise ValueError(
                f"sampler: the last move is from t = {last} with variance {step.variance}; "
                "expected the spacing leading or linspace, or all T steps, as DDPMScheduler leaves "
                "noise in pictures unless its last move is from t = 1"
            )
        return {"_class_name": "DDPMScheduler", "variance_type": VARIANCES[step.variance], **found}
    if variance:
        raise ValueError("sampler.step: DDIM; expected DDPM, as DDIMPipeline cannot read a network "
                         "that puts out a variance")  # fmt: skip
    _check_stride(sampler, process)
    return {"_class_name": "DDIMScheduler", "set_alpha_to_one": True, **found}


def _schedule(process: Process) -> dict[str, Any]:
    """Returns the process by name where diffusers has it, and by its β_t elsewhere."""
    values = betas(process)
    first, last = values[[0, -1]].tolist()
    ends = {"beta_start": round(first, 12), "beta_end": round(last, 12)}
    known: dict[str, tuple[Callable[..., Process], Any]] = {
        "linear": (Linear, ends.values()),
        "scaled_linear": (ScaledLinear, ends.values()),
        "squaredcos_cap_v2": (Cosine, ()),
    }
    for name, (kind, arguments) in known.items():
        if torch.allclose(kind(process.T, *arguments).alpha, process.alpha, rtol=0, atol=1e-9):
            return {"beta_schedule": name, **(ends if arguments else {}), "trained_betas": None}
    return {"trained_betas": values.tolist()}


def _range(sampler: Sampler) -> dict[str, Any]:
    """Returns how x̂_0 is kept in range."""
    kinds = [type(guide) for guide in sampler.guidance]
    if kinds == [Static]:
        return {"clip_sample": True, "clip_sample_range": 1.0, "thresholding": False}
    if kinds == [Dynamic] and isinstance(guide := sampler.guidance[0], Dynamic):
        limit = NO_LIMIT if guide.limit is None else guide.limit
        ratio = {"dynamic_thresholding_ratio": guide.percentile, "sample_max_value": limit}
        return {"clip_sample": False, "thresholding": True, **ratio}
    if kinds:
        found = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"sampler.guidance: {found}; expected none, Static or Dynamic, the ones "
                         "that diffusers' schedulers know (change it with --config)")  # fmt: skip
    return {"clip_sample": False, "thresholding": False}


def grid(spacing: str, T: int, n: int) -> Tensor:
    """Returns the n times that diffusers' schedulers visit, counted from 1, decreasing."""
    times = {
        "leading": lambda: (np.arange(0, n) * (T // n))[::-1] + 1,
        "trailing": lambda: np.round(np.arange(T, 0, -T / n)),
        "linspace": lambda: np.linspace(0, T - 1, n).round()[::-1] + 1,
    }[spacing]()
    return torch.from_numpy(times.astype(np.int64))


def _check_grid(sampler: Sampler, process: Process) -> None:
    """Refuses a grid that diffusers' schedulers do not walk."""
    times, spacing = sampler.times(process)[:-1], sampler.spacing
    if spacing not in GRIDS:
        raise ValueError(f"sampler.spacing: {spacing}; expected one of {', '.join(GRIDS)}, the "
                         "grids of diffusers' schedulers")  # fmt: skip
    if not torch.equal(grid(spacing, process.T, sampler.steps or process.T), times):
        raise ValueError(
            f"sampler.steps: {sampler.steps}, {spacing}, of T = {process.T}; expected a divisor of "
            "T, as diffusers' schedulers round the times otherwise"
        )


def _check_stride(sampler: Sampler, process: Process) -> None:
    """Refuses a grid on which DDIMScheduler would go elsewhere than to its next time."""
    steps = len(sampler.times(process)) - 1
    if not _strides(sampler, process.T):
        raise ValueError(
            f"sampler: {steps} steps, {sampler.spacing}, of T = {process.T}; expected times "
            f"{process.T // steps} apart, as DDIMScheduler goes by T // steps (leading, or "
            "trailing with a divisor of T)"
        )


def _strides(sampler: Sampler, T: int) -> bool:
    """Returns whether the times of a grid that DDIMScheduler knows lie ⌊T / steps⌋ apart."""
    times = sampler.times(T)
    there = (times[:-1] - T // (len(times) - 1)).clamp(min=0)
    return torch.equal(there, times[1:])
