"""diffusers' DDIMScheduler and DDPMScheduler: the process, the parameterisation and the sampler.

Their times count from 0, ours from 1. Both know the grids "leading", "trailing" and "linspace".
DDPMScheduler goes from each time to the next one of the grid, as our sampler does. DDIMScheduler
goes from t to t − ⌊T / steps⌋ whatever the grid, so only those grids are written for it, and read,
whose times lie that far apart. And DDPMScheduler adds noise wherever t > 0 (from 0), so that with
"fixed_large" and "learned_range" some is left in x_0 unless the last move is from there.
"""

import numpy as np
import torch
from torch import Tensor

from diffusion.common.validate import check_choice
from diffusion.guidance import Dynamic, Static
from diffusion.interop.betas import betas, named_process
from diffusion.interop.diffusers.options import check_fixed, translated
from diffusion.interop.presets import Settings, node
from diffusion.parameterization import X0, Eps, Parameterization, V
from diffusion.process import Process
from diffusion.sampler import Sampler
from diffusion.step import DDIM

FILE = "scheduler_config.json"
FIXED = {"set_alpha_to_one": True, "steps_offset": 0, "clip_sample_range": 1}
STEPS = {"DDPMScheduler": "DDPM", "DDIMScheduler": "DDIM"}
PREDICTIONS: dict[str, type[Parameterization]] = {"epsilon": Eps, "sample": X0, "v_prediction": V}
VARIANCES = {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned"}
LOGS = {"fixed_small_log": "small", "fixed_large_log": "large"}
SCHEDULES = {"linear": "Linear", "scaled_linear": "ScaledLinear", "squaredcos_cap_v2": "Cosine"}
GRIDS = ("leading", "trailing", "linspace")
NO_LIMIT = 1e6  # of dynamic thresholds; diffusers wants a number
DDIM_STEPS = 50  # what DDIMPipeline takes unless told otherwise


def sampling_settings(config: Settings) -> Settings:
    """Returns process, parameterisation, objective and sampler for a scheduler_config.json.

    Raises:
        ValueError: If an option has no counterpart.
    """
    step = translated(FILE, "_class_name", config.get("_class_name"), STEPS)
    check_fixed(FILE, config, FIXED)
    prediction, variance = config.get("prediction_type"), config.get("variance_type")
    parameterization = translated(FILE, "prediction_type", prediction or "epsilon", PREDICTIONS)
    spacing, T = config.get("timestep_spacing", "leading"), _last_time(config)
    sampler: Settings = {"guidance": _guidance(config), "spacing": spacing}
    if step == "DDPM":
        known = VARIANCES | LOGS
        ours = translated(FILE, "variance_type", variance or "fixed_small", known)
        sampler["step"] = node(step, variance=ours)
    elif _strides(Sampler(DDIM(), steps := min(DDIM_STEPS, T), spacing=spacing), T):
        sampler |= {"step": node(step, eta=0.0), "steps": steps}
    else:
        raise ValueError(
            f"{FILE}: timestep_spacing is {spacing}; expected leading, or trailing where {steps} "
            f"divides T = {T}, as DDIMScheduler steps by T // steps whatever its grid"
        )
    return {
        "process": _process(config),
        "parameterization": parameterization.__name__,
        "objective": node("Hybrid") if variance == "learned_range" else "Simple",
        "sampler": sampler,
    }


def _last_time(config: Settings) -> int:
    return len(config.get("trained_betas") or ()) or config.get("num_train_timesteps", 1000)


def _guidance(config: Settings) -> list[str | Settings]:
    """Returns what keeps x̂_0 in range."""
    if not config.get("thresholding"):
        return ["Static"] if config.get("clip_sample", True) else []
    # Their threshold lies between 1 and sample_max_value, by default 1 as well.
    most = config.get("sample_max_value", 1.0)
    if most < 1:
        raise ValueError(f"{FILE}: sample_max_value is {most}; expected ≥ 1")
    if most == 1:
        return ["Static"]
    limit = {} if most >= NO_LIMIT else {"limit": most}
    ratio = config.get("dynamic_thresholding_ratio", 0.995)
    return [node("Dynamic", percentile=ratio, **limit)]


def _process(config: Settings) -> Settings:
    """Returns the process."""
    if config.get("trained_betas"):
        found = node("Betas", betas=list(config["trained_betas"]))
    else:
        schedule = config.get("beta_schedule", "linear")
        name = translated(FILE, "beta_schedule", schedule, SCHEDULES)
        ends = {"beta_1": config.get("beta_start", 1e-4), "beta_T": config.get("beta_end", 0.02)}
        found = node(name, T=_last_time(config), **({} if name == "Cosine" else ends))
    return node("ZeroTerminal", process=found) if config.get("rescale_betas_zero_snr") else found


def scheduler_config(
    process: Process, parameterization: Parameterization, sampler: Sampler, variance: bool
) -> Settings:
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
    return found | _scheduler_class(process, sampler, variance)


def _scheduler_class(process: Process, sampler: Sampler, variance: bool) -> Settings:
    """Returns which scheduler it is, and what only this one has."""
    step, times = sampler.step, sampler.times(process)
    if not isinstance(step, DDIM) or step.eta not in (0, 1):
        raise ValueError(f"sampler.step: {type(step).__name__}; expected DDIM with eta 0, or DDPM "
                         "(say so with --config configs/sample/ddim50.yaml)")  # fmt: skip
    if step.eta == 0:
        if variance:
            raise ValueError("sampler.step: DDIM; expected DDPM, as DDIMPipeline cannot read a "
                             "network that puts out a variance")  # fmt: skip
        if not _strides(sampler, process.T):
            steps, T = len(times) - 1, process.T
            raise ValueError(
                f"sampler: {steps} steps, {sampler.spacing}, of T = {T}; expected times "
                f"{T // steps} apart, as DDIMScheduler goes by T // steps (leading, or trailing "
                "with a divisor of T)"
            )
        return {"_class_name": "DDIMScheduler", "set_alpha_to_one": True}
    if variance and step.variance != "learned":
        raise ValueError(f"sampler.step.variance: {step.variance}; expected learned, as "
                         "DDPMPipeline takes the network's other half for it")  # fmt: skip
    if step.variance != "small" and times[-2] > 1:
        raise ValueError(
            f"sampler: the last move is from t = {times[-2]} with variance {step.variance}; "
            "expected the spacing leading or linspace, or all T steps, as DDPMScheduler leaves "
            "noise in pictures unless its last move is from t = 1"
        )
    (theirs,) = (theirs for theirs, ours in VARIANCES.items() if ours == step.variance)
    return {"_class_name": "DDPMScheduler", "variance_type": theirs}


def _schedule(process: Process) -> Settings:
    """Returns the process by name where diffusers has it, and by its β_t elsewhere."""
    values = betas(process)
    found = named_process(values, exact=True)
    for theirs, ours in SCHEDULES.items():
        if found["class_path"] == ours:
            known = {"beta_1": "beta_start", "beta_T": "beta_end"}
            ends = {known[key]: end for key, end in found["init_args"].items() if key in known}
            return {"beta_schedule": theirs, **ends, "trained_betas": None}
    return {"trained_betas": values.tolist()}


def _range(sampler: Sampler) -> Settings:
    """Returns how x̂_0 is kept in range."""
    off = {"clip_sample": False, "thresholding": False}
    match list(sampler.guidance):
        case []:
            return off
        case [Static()]:
            return {**off, "clip_sample": True, "clip_sample_range": 1.0}
        case [Dynamic(percentile=ratio, limit=limit)]:
            most = {"sample_max_value": NO_LIMIT if limit is None else limit}
            return {**off, "thresholding": True, "dynamic_thresholding_ratio": ratio, **most}
        case guides:
            found = ", ".join(type(guide).__name__ for guide in guides)
            raise ValueError(f"sampler.guidance: {found}; expected none, Static or Dynamic, which "
                             "diffusers' schedulers know (change it with --config)")  # fmt: skip


def scheduler_times(spacing: str, T: int, n: int) -> Tensor:
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
    check_choice("sampler", GRIDS, spacing=spacing)
    if not torch.equal(scheduler_times(spacing, process.T, sampler.steps or process.T), times):
        raise ValueError(
            f"sampler.steps: {sampler.steps}, {spacing}, of T = {process.T}; expected a divisor of "
            "T, as diffusers' schedulers round the times otherwise"
        )


def _strides(sampler: Sampler, T: int) -> bool:
    """Returns whether the times of a grid that DDIMScheduler knows lie ⌊T / steps⌋ apart."""
    times = sampler.times(T)
    there = (times[:-1] - T // (len(times) - 1)).clamp(min=0)
    return torch.equal(there, times[1:])
