"""What every solver has to satisfy, against quantiles of exact marginals and against diffusers."""

import re
from itertools import pairwise

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from exact import PROCESSES, Gaussian, Mixture, Quantiles, Wavy, process

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Static
from diffusion.parameterization import X0, Eps, V, Velocity
from diffusion.process import Cosine, Linear, RectifiedFlow, ScaledLinear, ZeroTerminal
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, UniPC

T = 32_000
SOLVERS = {
    "heun": Heun(),
    "heun-churn": Heun(churn=0.2, s_noise=1.003),
    "2m": DPMSolver(),
    "2m-sde": DPMSolver(eta=1.0),
    "unipc1": UniPC(1),
    "unipc2": UniPC(),
    "unipc3": UniPC(3),
    "unipc2-bh1": UniPC(variant="bh1"),
    "unip3": UniPC(3, corrector=False),
}
DETERMINISTIC = [name for name in SOLVERS if name not in ("heun-churn", "2m-sde")]
EMPTY = Condition()
EVEN = torch.tensor([[-0.8], [0.7]], dtype=torch.float64)


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def walk(step, denoise, it, times, x, randn_like=torch.randn_like):
    """Yields x after each step over any times, without a sampler."""
    step = step.begin()
    for t, s in pairwise(times):
        x = step(denoise, it, x, t, s, randn_like)
        yield x


def between(high, low, n):
    return torch.linspace(high, low, n + 1, dtype=torch.float64).round().long()


def error(step, exact, times):
    """The largest distance from the ODE's solution."""
    *_, x = walk(step, exact.data, exact.data.process, times, exact.at(int(times[0])))
    return (x - exact.at(int(times[-1]))).abs().max()


@pytest.mark.parametrize(
    ("step", "low", "high"),
    [
        (DDIM(), 0.9, 1.1),
        (DPMSolver(1), 0.9, 1.1),
        (Heun(), 1.8, 2.4),
        (DPMSolver(), 1.8, 2.4),
        (UniPC(2, corrector=False), 1.8, 2.4),
        (UniPC(3, corrector=False), 2.4, 3.6),
        (UniPC(1, "bh1"), 1.8, 2.4),  # the corrector adds one order
        (UniPC(1, "bh2"), 1.8, 2.4),
        (UniPC(2, "bh1"), 2.5, 3.4),
        (UniPC(2, "bh2"), 2.5, 3.4),
        (UniPC(3, "bh1"), 3.0, 4.6),
        (UniPC(3, "bh2"), 3.0, 4.6),
    ],
)
@pytest.mark.parametrize("of", [Linear, RectifiedFlow])
def test_order_of_convergence(of, step, low, high):
    exact = Quantiles(process(of, T))
    errors = [error(step, exact, between(0.8 * T, 0.1 * T, n)) for n in (64, 128)]
    order = (errors[0] / errors[1]).log2()
    assert low < order < high, (order, errors)


@pytest.mark.parametrize("of", [RectifiedFlow, ZeroTerminal])
@pytest.mark.parametrize(("name", "low"), [("heun", 1.7), ("2m", 1.6), ("unipc2", 2.2)])
def test_order_holds_from_pure_noise(of, name, low):
    """Where α_T = 0, λ_T = −∞ and a step of first order has to be made."""
    exact = Quantiles(process(of, T))
    errors = [error(SOLVERS[name], exact, between(T, 0.1 * T, n)) for n in (20, 80)]
    assert (errors[0] / errors[1]).log2() / 2 > low, errors


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_whole_runs_converge_for_any_process(of, name):
    """From T to 0: to the exact samples, and nearer to them than DDIM's with as many steps."""
    exact = Quantiles(process(of, 2000))
    it, step = exact.data.process, SOLVERS[name]
    errors = [error(step, exact, Sampler(step, n, spacing="karras").times(it)) for n in (10, 40)]
    ddim = error(DDIM(), exact, Sampler(step, 40, spacing="karras").times(it))
    assert errors[1] < min(0.02, 0.2 * errors[0], 0.4 * ddim), (errors, ddim)


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_path_is_finite(of, name):
    it = process(of, 60)
    for spacing in ("trailing", "leading", "quadratic", "karras", "log_snr"):
        for steps in (1, 2, 3, 30):
            x_T = torch.randn(4, 1)
            sampler = Sampler(SOLVERS[name], steps, spacing=spacing)
            for x in sampler.trajectory(Mixture(it, EVEN.float(), 0.2), it, x_T):
                assert x.isfinite().all()
                assert x.dtype == torch.float32


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("name", SOLVERS)
def test_one_image_is_found(of, name):
    it = process(of, 60)
    data = Mixture(it, EVEN[:1], 0.0)
    x_0 = Sampler(SOLVERS[name], 5)(data, it, torch.randn(4, 1, dtype=torch.float64))
    torch.testing.assert_close(x_0, EVEN[:1].expand(4, 1))


@pytest.mark.parametrize("name", SOLVERS)
def test_history_does_not_leak(name):
    """Two runs in a row, and two at once, are the same; so is one that follows a broken-off one."""
    it, x_T = Linear(), torch.randn(3, 1, dtype=torch.float64)
    data, sampler = Mixture(it, EVEN, 0.2), Sampler(SOLVERS[name], 10)
    first = list(sampler.trajectory(data, it, x_T, randn_like=seeded()))
    next(sampler.trajectory(data, it, x_T + 1))
    paths = [sampler.trajectory(data, it, x_T, randn_like=seeded()) for _ in range(2)]
    for x, *others in zip(first, *paths, strict=True):
        assert all(torch.equal(x, other) for other in others)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_samples_do_not_depend_on_the_batch(name):
    it, x_T = Cosine(), torch.randn(5, 1, dtype=torch.float64)
    data, sampler = Mixture(it, EVEN, 0.2), Sampler(SOLVERS[name], 10, spacing="karras")
    alone = torch.cat([sampler(data, it, x[None]) for x in x_T])
    torch.testing.assert_close(sampler(data, it, x_T), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("it", [Linear(), Cosine(), RectifiedFlow(), ZeroTerminal(ScaledLinear())])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_float32_is_float64(name, it):
    x_T = torch.randn(16, 1, dtype=torch.float64)
    sampler = Sampler(SOLVERS[name], 20, spacing="karras")
    single = sampler(Gaussian(it), it, x_T.float())
    assert (single - sampler(Gaussian(it), it, x_T)).abs().max() < 2e-5


@pytest.mark.parametrize("name", SOLVERS)
def test_guidance_binds_every_evaluation(name):
    it = Cosine(100)
    sampler = Sampler(SOLVERS[name], 10, [Static()])
    assert sampler(Gaussian(it, mean=3.0), it, torch.randn(32, 2)).abs().max() <= 1


@pytest.mark.parametrize("it", [Linear(), RectifiedFlow(), ZeroTerminal(ScaledLinear())])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_cost(name, it):
    """One evaluation a step; Heun's take two, but for those into 0 and from beyond σ/α = 80."""
    data = Mixture(it, EVEN, 0.2)
    sampler = Sampler(SOLVERS[name], 18, spacing="karras")
    sampler(data, it, torch.randn(2, 1, dtype=torch.float64))
    beyond = int(it.sigma[-1] > 80 * it.alpha[-1])
    assert len(data.calls) == (35 - beyond if name == "heun" else 18)


@pytest.mark.parametrize("of", PROCESSES)
def test_solvers_contain_ddim_and_ddpm(of):
    it, x_T = process(of, 60), torch.randn(6, 1, dtype=torch.float64)
    data = Mixture(it, EVEN, 0.2)
    ddim = list(Sampler(DDIM(), 9).trajectory(data, it, x_T))
    for step in (DPMSolver(1), UniPC(1, corrector=False)):
        for x, expected in zip(Sampler(step, 9).trajectory(data, it, x_T), ddim, strict=True):
            torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)
    first = [next(Sampler(s, 9).trajectory(data, it, x_T)) for s in (DPMSolver(), UniPC(3))]
    for x in first:
        torch.testing.assert_close(x, ddim[0], rtol=1e-10, atol=1e-10)
    ddpm = Sampler(DDPM(), 9).trajectory(data, it, x_T, randn_like=seeded())
    ours = Sampler(DPMSolver(1, eta=1.0), 9).trajectory(data, it, x_T, randn_like=seeded())
    for x, expected in zip(ours, ddpm, strict=True):
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


NAMES = {Eps: "epsilon", X0: "sample", V: "v_prediction", Velocity: "flow_prediction"}


def diffusers_run(kind, network, it, times, x, parameterization, noise=None, **settings):
    """A multistep scheduler's path over our own times, with its table in float64 as ours is."""
    settings["prediction_type"] = NAMES[parameterization]
    sigmas = it.sigma[times]
    if parameterization is Velocity:
        settings["use_flow_sigmas"] = True
    else:
        sigmas = sigmas / it.alpha[times]
    scheduler = kind(it.T, **settings)
    scheduler.set_timesteps(len(times) - 1)
    scheduler.timesteps, scheduler.sigmas = times[:-1], sigmas
    for t in times[:-1]:
        extra = {} if noise is None else {"variance_noise": noise(x)}
        x = scheduler.step(network(x, t), t, x, **extra).prev_sample.detach().double()
        yield x


def compare(ours, theirs, tolerance=1e-5):
    for x, expected in zip(ours, theirs, strict=True):
        assert expected.isfinite().all()
        assert (x - expected).abs().max() < tolerance * expected.abs().max()


def start(it, parameterization, steps, spacing="trailing"):
    times = Sampler(DDIM(), steps, spacing=spacing).times(it)
    denoiser = NetworkDenoiser(Wavy().double(), it, parameterization()).requires_grad_(False)
    return times, denoiser, torch.randn(3, 1, 2, 2, dtype=torch.float64)


def parameterized(it):
    return [Velocity] if isinstance(it, RectifiedFlow) else [Eps, X0, V]


CASES = [(it, p) for it in (Linear(), Cosine(), RectifiedFlow()) for p in parameterized(it)]
each_case = pytest.mark.parametrize(
    ("it", "of"), CASES, ids=lambda v: getattr(v, "__name__", type(v).__name__)
)
each_length = pytest.mark.parametrize("steps", [5, 10, 20, 50])


@each_case
@each_length
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_is_diffusers(it, of, steps, eta):
    times, denoiser, x = start(it, of, steps)
    kind = "dpmsolver++" if eta == 0 else "sde-dpmsolver++"
    theirs = diffusers_run(
        DPMSolverMultistepScheduler,
        denoiser.network,
        it,
        times,
        x,
        of,
        seeded() if eta else None,
        algorithm_type=kind,
    )
    sampler = Sampler(DPMSolver(eta=eta), steps)
    compare(sampler.trajectory(denoiser, it, x, randn_like=seeded()), theirs)


@each_case
@each_length
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_is_diffusers(it, of, steps, order, variant):
    """Where theirs is finite: from α > 0, and for "bh1" not into s = 0. They lower order 3 once
    more, in the last step but one."""
    times, denoiser, x = start(it, of, steps)
    times = times[1:] if it.alpha[-1] == 0 else times
    theirs = diffusers_run(
        UniPCMultistepScheduler,
        denoiser.network,
        it,
        times,
        x,
        of,
        solver_order=order,
        solver_type=variant,
    )
    ours = walk(UniPC(order, variant), lambda x, t: denoiser(x, t, EMPTY), it, times, x)
    ours, theirs = list(ours), list(theirs)
    kept = len(ours) - (2 if order == 3 else variant == "bh1")
    compare(ours[:kept], theirs[:kept])
    torch.testing.assert_close(ours[-1], denoiser(ours[-2], times[-2], EMPTY).x_0)


@pytest.mark.parametrize("it", [Linear(), Cosine(), ScaledLinear()])
@pytest.mark.parametrize("of", [Eps, V])
@each_length
def test_heun_is_diffusers(it, of, steps):
    """From σ/α ≤ 80; their samples are x/α, and they call the network from within the step."""
    times, denoiser, x = start(it, of, steps, "karras")
    times = times[it.sigma[times] <= 80 * it.alpha[times]]
    scheduler = HeunDiscreteScheduler(it.T, prediction_type=NAMES[of])
    scheduler.set_timesteps(len(times) - 1)
    u = it.sigma[times] / it.alpha[times]
    scheduler.sigmas = torch.cat([u[:1], u[1:-1].repeat_interleave(2), u[-1:]])
    scheduler.timesteps = torch.cat([times[:1], times[1:-1].repeat_interleave(2)])
    y, path = x / it.alpha[times[0]], []
    for index, t in enumerate(scheduler.timesteps):
        output = denoiser.network(scheduler.scale_model_input(y, t), t)
        y = scheduler.step(output, t, y).prev_sample
        path += [y] if index % 2 or index == len(scheduler.timesteps) - 1 else []
    ours = walk(Heun(), lambda x, t: denoiser(x, t, EMPTY), it, times, x)
    compare(ours, [y * it.alpha[s] for y, s in zip(path, times[1:], strict=True)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: DPMSolver(order=4), "order: 4; expected 1 or 2"),
        (lambda: DPMSolver(eta=-0.1), "eta: -0.1; expected a number ≥ 0"),
        (lambda: DPMSolver(eta=float("nan")), "eta: nan; expected a number ≥ 0"),
        (lambda: UniPC(order=4), "order: 4; expected 1, 2 or 3"),
        (lambda: UniPC(order=0), "order: 0; expected 1, 2 or 3"),
        (lambda: UniPC(variant="bh3"), "variant: 'bh3'; expected one of bh1, bh2"),
        (lambda: Heun(churn=-0.1), "churn: -0.1; expected 0 … √2 − 1 (EDM's S_churn / steps)"),
        (lambda: Heun(churn=40), "churn: 40; expected 0 … √2 − 1 (EDM's S_churn / steps)"),
        (lambda: Heun(s_min=2, s_max=1), "s_min: 2; expected 0 … s_max = 1"),
        (lambda: Heun(s_noise=-1.0), "s_noise: -1.0; expected a number ≥ 0"),
    ],
)
def test_settings_out_of_range(bad, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        bad()
