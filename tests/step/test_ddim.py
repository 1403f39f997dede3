from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from exact import PROCESSES, Gaussian, Mixture, Wavy, process

from diffusion.condition import Condition
from diffusion.denoiser import NetworkDenoiser
from diffusion.guidance import Static
from diffusion.parameterization import X0, Eps, V, Velocity
from diffusion.process import Cosine, Linear, RectifiedFlow, ScaledLinear, ZeroTerminal
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM

NAMES = {"Eps": "epsilon", "X0": "sample", "V": "v_prediction"}


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def diffusers_run(scheduler, network, x, times, **settings):
    """Runs a scheduler of diffusers, with a network that counts times from 1; returns every x."""
    generator, path = torch.Generator().manual_seed(1), []
    for index, t in zip(scheduler.timesteps, times):
        output = network(x, torch.full((len(x),), int(t)))
        x = scheduler.step(output, index, x, generator=generator, **settings).prev_sample.detach()
        path.append(x)
    return path


def scheduler_for(kind, it, steps, spacing, **settings):
    """A scheduler over the whole schedule, its table in float64 as ours is."""
    betas = (1 - (it.alpha[1:] / it.alpha[:-1]) ** 2).tolist()
    settings = {"clip_sample": False, "timestep_spacing": spacing, **settings}
    scheduler = kind(it.T, trained_betas=betas, **settings)
    scheduler.alphas_cumprod = it.alpha[1:] ** 2
    scheduler.set_timesteps(steps)
    return scheduler


def respaced(kind, it, times, **settings):
    """A scheduler whose own times are the visited ones, as Improved DDPM respaces a process.

    diffusers' DDIM goes from t to t − T // steps, which is the next visited time only for "leading"
    and, where steps divides T, for "trailing"; this way any grid can be compared.
    """
    alpha = it.alpha[times.flip(0)]
    betas = (1 - (alpha[1:] / alpha[:-1]) ** 2).tolist()
    scheduler = kind(len(betas), trained_betas=betas, clip_sample=False, **settings)
    scheduler.alphas_cumprod = alpha[1:] ** 2
    scheduler.set_timesteps(len(betas))
    return scheduler


def compare(ours, theirs, tolerance=1e-7):
    for x, expected in zip(ours, theirs, strict=True):
        assert expected.isfinite().all()
        assert (x - expected).abs().max() < tolerance * expected.abs().max()


RUNS = [(spacing, steps) for spacing in ("trailing", "leading") for steps in (10, 50)]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "steps"), [*RUNS, ("leading", 30), ("trailing", 1000)])
def test_ddim_is_diffusers(spacing, steps, eta):
    it, x_T = Linear(), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(Wavy().double(), it, Eps())
    sampler = Sampler(DDIM(eta), steps, spacing=spacing)
    scheduler = scheduler_for(DDIMScheduler, it, steps, spacing)
    times = sampler.times(1000)
    assert (scheduler.timesteps + 1).tolist() == times[:-1].tolist()
    theirs = diffusers_run(scheduler, denoiser.network, x_T, times, eta=eta)
    compare(sampler.trajectory(denoiser, it, x_T, randn_like=seeded()), theirs)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize(
    ("spacing", "steps"), [*RUNS, ("linspace", 50), ("trailing", 30), ("trailing", 1000)]
)
def test_ddpm_is_diffusers(spacing, steps, variance):
    it, x_T = Linear(), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    network = Wavy(2 if variance == "learned" else 1).double()
    denoiser = NetworkDenoiser(network, it, Eps())
    sampler = Sampler(DDPM(variance), steps, spacing=spacing)
    name = {"learned": "learned_range"}.get(variance, f"fixed_{variance}")
    scheduler = scheduler_for(DDPMScheduler, it, steps, spacing, variance_type=name)
    times = sampler.times(1000)
    theirs = diffusers_run(scheduler, network, x_T, times)
    if scheduler.timesteps[-1] > 0:  # there they add noise even to the last step, to x_0
        theirs[-1] = denoiser(theirs[-2], times[-2], Condition()).x_0.detach()
    compare(sampler.trajectory(denoiser, it, x_T, randn_like=seeded()), theirs)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "quadratic"])
@pytest.mark.parametrize("it", [Linear(), Cosine(), ScaledLinear()])
def test_ddim_is_diffusers_on_uneven_grids(it, spacing, eta):
    x_T = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(Wavy().double(), it, V())
    sampler = Sampler(DDIM(eta), 30, spacing=spacing)
    times = sampler.times(1000)
    scheduler = respaced(DDIMScheduler, it, times, prediction_type="v_prediction")
    theirs = diffusers_run(scheduler, denoiser.network, x_T, times, eta=eta)
    compare(sampler.trajectory(denoiser, it, x_T, randn_like=seeded()), theirs)


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
def test_clipping_is_diffusers(kind, parameterization):
    """DDPM clips x̂_0; in DDIM ε̂ has to follow, which diffusers calls use_clipped_model_output."""
    it, x_T = Cosine(), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    denoiser = NetworkDenoiser(Wavy(size=2.0).double(), it, parameterization)
    step = DDIM() if kind is DDIMScheduler else DDPM()
    sampler = Sampler(step, 50, [Static()])
    name = NAMES[type(parameterization).__name__]
    scheduler = scheduler_for(kind, it, 50, "trailing", clip_sample=True, prediction_type=name)
    settings = {"use_clipped_model_output": True} if kind is DDIMScheduler else {}
    theirs = diffusers_run(scheduler, denoiser.network, x_T, sampler.times(1000), **settings)
    compare(sampler.trajectory(denoiser, it, x_T, randn_like=seeded()), theirs)
    free = Sampler(step, 50)(denoiser, it, x_T, randn_like=seeded())
    assert (free - theirs[-1]).abs().max() > 1e-3


def test_zero_terminal_is_diffusers():
    it = ZeroTerminal(ScaledLinear())
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    scheduler.set_timesteps(50)
    x_T = torch.randn(3, 1, 2, 2)
    denoiser = NetworkDenoiser(Wavy(), it, V())
    sampler = Sampler(DDIM(), 50)
    theirs = diffusers_run(scheduler, denoiser.network, x_T, sampler.times(1000))
    compare(sampler.trajectory(denoiser, it, x_T), theirs, 1e-3)  # their tables are float32


@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_rectified_flow_is_diffusers_and_euler(steps):
    it, x_T = RectifiedFlow(), torch.randn(3, 1, 2, 2)
    network = Wavy()
    ours = Sampler(DDIM(), steps)(NetworkDenoiser(network, it, Velocity()), it, x_T)
    scheduler = FlowMatchEulerDiscreteScheduler(1000)
    scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    euler = flow = x_T
    with torch.no_grad():
        for i, index in enumerate(scheduler.timesteps):
            t = torch.full((3,), 1000 - i * 1000 // steps)
            euler = euler - network(euler, t) / steps
            flow = scheduler.step(network(flow, t), index, flow).prev_sample
    for theirs in (euler, flow):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("steps", [7, 40])
def test_ddim_with_eta_one_is_ddpm(of, steps):
    """Both draw from q(x_s | x_t, x̂_0), here written with the posterior itself."""
    it = process(of, 40)
    data = Gaussian(it)
    x = x_T = torch.randn(8, 1, dtype=torch.float64)
    randn_like, times = seeded(), Sampler(DDIM(), steps).times(40)
    for t, s in pairwise(times):
        mean, variance = it.posterior(data(x, t).x_0, x, t, s)
        x = mean + (variance.sqrt() * randn_like(x) if s > 0 else 0)
    for step in (DDIM(eta=1.0), DDPM()):
        ours = Sampler(step, steps)(data, it, x_T, randn_like=seeded())
        torch.testing.assert_close(ours, x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("of", PROCESSES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_image_keeps_its_marginals(of, eta):
    """With x̂_0 = x_0 every x_s has the distribution N(α_s x_0, σ_s² I) (DDIM, lemma 1)."""
    it, n, x_0 = process(of, 40), 40_000, 0.8
    data = Mixture(it, torch.tensor([[x_0]], dtype=torch.float64), 0.0)
    alpha, sigma = it.alpha[-1], it.sigma[-1]
    x_T = alpha * x_0 + sigma * torch.randn(n, 1, dtype=torch.float64)
    sampler = Sampler(DDIM(eta), 6)
    times = sampler.times(40)[1:]
    for s, x in zip(times, sampler.trajectory(data, it, x_T)):
        assert abs(x.mean() - it.alpha[s] * x_0) <= 4 * it.sigma[s] / n**0.5 + 1e-9
        if s > 0:
            assert abs(x.std() / it.sigma[s] - 1) < 4 / (2 * n) ** 0.5
    assert (x - x_0).abs().max() < 1e-9


@pytest.mark.parametrize("of", PROCESSES)
def test_true_reverse_variance_gives_true_marginals_in_few_steps(of):
    """For Gaussian data p(x_s | x_t) is Gaussian for any s < t; "learned" can say its variance."""
    it, n = process(of, 40), 40_000
    data = Gaussian(it, 0.4, 0.6)

    def denoise(x_t, t, cond):
        s = times[(times == t).nonzero().item() + 1]
        ends = [
            it.reverse_log_variance(t, s, x_t, "learned", torch.full_like(x_t, v)) for v in (0, 1)
        ]
        log_variance = torch.tensor(data.reverse_variance(int(t), int(s))).log()
        pred = data(x_t, t)
        v = (log_variance - ends[0]) / (ends[1] - ends[0])
        return type(pred)(x_t, pred.x_0, pred.alpha, pred.sigma, v)

    sampler = Sampler(DDPM("learned"), 5)
    times = sampler.times(40)
    mean, std = data.marginal(40)
    x_T = mean + std * torch.randn(n, 1, dtype=torch.float64)
    for s, x in zip(times[1:-1], sampler.trajectory(denoise, it, x_T)):
        mean, std = data.marginal(int(s))
        assert abs(x.mean() - mean) < 4 * std / n**0.5
        assert abs(x.std() / std - 1) < 4 / (2 * n) ** 0.5


def test_samples_are_the_data_set():
    """With the exact denoiser of four points every sampler ends on one of them."""
    points = torch.tensor([[-0.8, -0.5], [0.6, 0.7], [0.5, -0.6], [-0.4, 0.5]])
    for it in (Linear(), Cosine(), RectifiedFlow()):
        data, x_T = Mixture(it, points, 0.0), torch.randn(400, 2)
        for step in (DDIM(), DDPM(), DDPM("large")):
            x_0 = Sampler(step, 50)(data, it, x_T)
            nearest = (x_0[:, None] - points).norm(dim=2).min(1)
            assert (nearest.values < 0.02).float().mean() > 0.98
            assert (torch.bincount(nearest.indices, minlength=4) > 60).all()


def test_learned_variance_needs_a_network_that_says_it():
    it = Cosine(10)
    with pytest.raises(
        ValueError, match="variance: learned; expected a network with twice the channels"
    ):
        Sampler(DDPM("learned"))(Gaussian(it), it, torch.randn(2, 1))


@pytest.mark.parametrize("eta", [-0.1, float("nan")])
def test_eta_out_of_range(eta):
    with pytest.raises(ValueError, match=rf"eta: {eta}; expected a number ≥ 0"):
        DDIM(eta)
