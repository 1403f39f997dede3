"""An average of any length from snapshots of others (Karras et al. 2024, section 3.2).

A snapshot i is a mean of the weights under the density p_i(τ) = (γ_i + 1) τ^{γ_i} / t_i^{γ_i+1} on
[0, t_i]. With coefficients x the sum Σ_i x_i θ̂_i is one under Σ_i x_i p_i, whatever θ was. Of all
x, those are taken whose Σ_i x_i p_i is nearest to the wanted p_r in L², with A_ij = ⟨p_i, p_j⟩,
b_i = ⟨p_i, p_r⟩ and ⟨p, q⟩ = ∫ p(τ) q(τ) dτ:

    minimise xᵀ A x − 2 bᵀ x   where Σ_i x_i = 1,   so   A x + λ 1 = b.

The condition is ours; the paper solves A x = b. It makes the sum a mean of weights also where there
are few snapshots: a sum of 0.99 would shrink every weight by a hundredth, which is more than what
lengths differ by. Both densities are 0 beyond m = min(t_i, t_j), so the integral is one of a power,

    ⟨p_i, p_j⟩ = (γ_i + 1)(γ_j + 1) / (t_i^{γ_i+1} t_j^{γ_j+1}) ∫_0^m τ^{γ_i+γ_j} dτ
               = (γ_i + 1)(γ_j + 1) / (γ_i + γ_j + 1) · (m/t_i)^{γ_i+1} (m/t_j)^{γ_j+1} / m.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from diffusion.systems.averages.power import gamma_of

Array = NDArray[np.float64]


class Snapshot(NamedTuple):
    """A file, and the average in it.

    Attributes:
        path: The file.
        step: t of the average.
        width: Its σ_rel.
    """

    path: Path
    step: int
    width: float


def snapshots_until(folder: Path, last: int) -> list[Snapshot]:
    """Returns the snapshots of a folder up to a step, earliest first.

    Raises:
        ValueError: If a file is something else.
    """
    every = list[Snapshot]()
    for path in sorted(folder.glob("step_*.safetensors")):
        if path.stem.count(".") > 1:  # renamed for a newer one
            continue
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
            every.append(Snapshot(path, int(about["step"]), float(about["width"])))
        except Exception:  # of the reader's many
            raise ValueError(f"snapshots: {path}; expected what `Snapshots` writes") from None
    return [one for one in every if one.step <= last]


def inner(gamma: Array, t: Array, other_gamma: Array, other_t: Array) -> Array:
    """Returns ⟨p_i, p_j⟩ of densities, broadcast against each other."""
    m = np.minimum(t, other_t)
    factor = (gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1)
    return factor * (m / t) ** (gamma + 1) * (m / other_t) ** (other_gamma + 1) / m


def coefficients(snapshots: Sequence[Snapshot], width: float, step: int) -> Array:
    """Returns x, one number a snapshot.

    Args:
        snapshots: What there is.
        width: σ_rel of the average that is wanted.
        step: Its t.

    Raises:
        ValueError: If the width is out of its range.
    """
    t = np.array([one.step for one in snapshots], dtype=np.float64)
    gamma = np.array([gamma_of(one.width) for one in snapshots])
    scale = inner(gamma, t, gamma, t) ** -0.5  # densities of norm 1: early ones count as late ones
    A = inner(gamma[:, None], t[:, None], gamma, t) * scale * scale[:, None]
    b = inner(gamma, t, np.array(gamma_of(width)), np.array(float(step))) * scale
    whole = np.block([[A, scale[:, None]], [scale, np.zeros((1, 1))]])
    return scale * np.linalg.lstsq(whole, np.append(b, 1.0), rcond=1e-12)[0][:-1]


def reconstructed(snapshots: Sequence[Snapshot], width: float, step: int) -> dict[str, Tensor]:
    """Returns the trained parameters of an average, in float32; arguments as `coefficients`."""
    total: dict[str, Tensor] = {}
    for one, x in zip(snapshots, coefficients(snapshots, width, step)):
        with safe_open(one.path, framework="pt") as file:
            for key in file.keys():
                part = file.get_tensor(key).float().mul_(float(x))
                total[key] = total[key].add_(part) if key in total else part
    return total
