"""The same network as this project's, as a bare loop's, and as other packages' own."""

import copy
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.cli.convert import load_published
from diffusion.condition import Condition
from diffusion.guidance import Static
from diffusion.interop.diffusers.unet_weights import exported_weights, unet_config
from diffusion.networks import UNet
from diffusion.noise import SeededNoise, Use
from diffusion.objective import Simple
from diffusion.parameterization import Eps
from diffusion.process import Linear
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion

DRAWN = 4  # steps of the samplers
LAST = torch.channels_last


class Ours:
    """A network of this project, with the parts that train it and draw with it."""

    def __init__(self, network: nn.Module, x_0: Tensor) -> None:
        sampler = Sampler(DDIM(), DRAWN, [Static()])
        self.system = Diffusion(copy.deepcopy(network), Linear(), Eps(), Simple(), sampler)
        self.system.to(x_0.device)
        self.network, self.x_0, self.number = self.system.denoiser.network, x_0, 0

    def loss(self) -> Tensor:
        """Returns the next step's loss."""
        self.number += 1
        numbers = range(self.number << 32, (self.number << 32) + len(self.x_0))
        noise = SeededNoise(0, numbers, self.x_0.device, Use.TRAINING)
        t, eps = self.system.objective.draw(self.system.process, self.x_0, noise)
        return self.system.objective(self.system.denoiser, self.x_0, Condition(), t, eps).mean()

    def draw(self, n: int) -> Tensor:
        """Returns pictures."""
        self.system.eval()
        noise = SeededNoise(0, range(n), self.x_0.device)
        x_T = noise.normal(tuple(self.x_0.shape[1:]))
        return self.system.sampler(self.system.denoiser, self.system.process, x_T, None, noise)


class Bare:
    """The same network in a loop without anything."""

    def __init__(self, network: nn.Module, x_0: Tensor) -> None:
        self.network, self.x_0 = copy.deepcopy(network).to(x_0.device), x_0
        self.network.to(memory_format=LAST)
        process = Linear()
        self.alpha, self.sigma = (x.float().to(x_0.device) for x in (process.alpha, process.sigma))

    def loss(self) -> Tensor:
        """Returns a loss."""
        t = torch.randint(1, 1001, (len(self.x_0),), device=self.x_0.device)
        eps = torch.randn_like(self.x_0)
        alpha, sigma = (x[t][:, None, None, None] for x in (self.alpha, self.sigma))
        x_t = (alpha * self.x_0 + sigma * eps).contiguous(memory_format=LAST)
        return F.mse_loss(self.network(x_t, t), eps)

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """Returns pictures by DDIM (its eq. 12, η = 0), x̂_0 in [−1, 1]."""
        self.network.eval()
        x = torch.randn_like(self.x_0[:n])
        times = [round(1000 * i / DRAWN) for i in range(DRAWN, -1, -1)]
        for t, s in pairwise(times):
            eps = self.network(x, torch.full((n,), t, device=x.device))
            x_0 = ((x - self.sigma[t] * eps) / self.alpha[t]).clamp(-1, 1)
            eps = (x - self.alpha[t] * x_0) / self.sigma[t]
            x = self.alpha[s] * x_0 + self.sigma[s] * eps
        return x


class Diffusers:
    """A UNet2DModel of diffusers with the same weights, as its examples train it."""

    def __init__(self, network: UNet, x_0: Tensor, best: bool) -> None:
        from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel

        made: Any = UNet2DModel.from_config(unet_config(network))
        made.load_state_dict(exported_weights(network))
        made.to(x_0.device)
        self.network = made.to(memory_format=LAST) if best else made
        self.x_0 = x_0.contiguous(memory_format=LAST) if best else x_0
        self.noise = DDPMScheduler()
        self.pipeline: Any = DDIMPipeline(made, DDIMScheduler())
        self.pipeline.set_progress_bar_config(disable=True)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns what the network puts out; its times begin at 0."""
        return self.network(x, t - 1).sample

    def loss(self) -> Tensor:
        """Returns a loss."""
        t = torch.randint(0, 1000, (len(self.x_0),), device=self.x_0.device)
        eps = torch.randn_like(self.x_0)
        noisy: Any = self.noise.add_noise(self.x_0, eps, t)  # pyright: ignore[reportArgumentType]
        return F.mse_loss(self.network(noisy, t).sample, eps)

    def draw(self, n: int) -> object:
        """Returns pictures."""
        self.network.eval()
        return self.pipeline(n, num_inference_steps=DRAWN, output_type="pt")


class Lucidrains:
    """A Unet of denoising-diffusion-pytorch in its GaussianDiffusion."""

    def __init__(self, theirs: Any, channels: int, x_0: Tensor, best: bool) -> None:
        torch.manual_seed(0)
        # On a GPU it asks for the flash kernel alone, which there is not for float32.
        fused = best and x_0.device.type == "cpu"
        self.network = theirs.Unet(channels, dim_mults=(1, 2, 2, 2), flash_attn=fused)
        self.diffusion = theirs.GaussianDiffusion(
            self.network, image_size=x_0.shape[-1], objective="pred_noise",
            beta_schedule="linear", sampling_timesteps=DRAWN,
        ).to(x_0.device)  # fmt: skip
        self.x = (x_0 + 1) / 2
        if best:
            self.network.to(memory_format=LAST)
            self.x = self.x.contiguous(memory_format=LAST)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns what the network puts out; its times begin at 0."""
        return self.network(x, t - 1)

    def loss(self) -> Tensor:
        """Returns a loss."""
        return self.diffusion(self.x)

    def draw(self, n: int) -> object:
        """Returns pictures."""
        self.network.eval()
        return self.diffusion.sample(n)

    def as_ours(self) -> nn.Module:
        """Returns this project's network with the same weights."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            torch.save({"model": self.diffusion.state_dict()}, path)
            system: Any = load_published("ddpm-torch", path)[0]
        return system.denoiser.network
