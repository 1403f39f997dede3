# pyright: strict
"""Going back and forth, so that what was drawn can agree with what was given."""

from torch import Tensor

from diffusion.process import Process, Variance
from diffusion.step.base import Denoise, Noise, Step


class RePaint(Step):
    """x_s by another step, then x_t ~ q(x_t | x_s) and again (Lugmayr et al. 2022, algorithm 1).

    A denoiser that `Inpaint` guides estimates the unknown pixels from known ones that are as noisy
    as x_t. Every repetition brings new noise for the known pixels and lets the others answer to it;
    https://arxiv.org/abs/2201.09865. The jump is one step of the grid, so with fewer steps it is
    longer (the paper's is 10 of 250). The last step, to s = 0, is made once, as in the paper. It
    costs (steps − 1) · repeats + 1 evaluations where `step` costs steps.

    For an exact denoiser without `Inpaint` the distribution stays and the price rises: if x_s has
    the distribution of time s, what comes back up has that of time t. A trained one is not exact,
    and each repetition adds its error again.

    Args:
        step: How to go down. It begins anew each time, so that a multistep solver is of order one.
        repeats: How often, at least 1; 1 is `step` alone, 10 the paper's.

    Raises:
        ValueError: If there is nothing to repeat.
    """

    def __init__(self, step: Step, repeats: int = 10) -> None:
        if repeats < 1:
            raise ValueError(f"step.repeats: {repeats}; expected at least 1")
        self.step, self.repeats = step, repeats
        self.variance = step.variance

    @property
    def ancestral(self) -> Variance | None:
        """That of `step`."""
        return self.step.ancestral

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Tensor, t: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """See `Step`."""
        (alpha_t, _), (alpha_s, _) = process.scales(t, x_t), process.scales(s, x_t)
        forward, _ = process.variances(t, s, x_t)
        x_s = self.step.begin()(denoise, process, x_t, t, s, noise)
        for _ in range(self.repeats - 1 if s > 0 else 0):
            x_t = alpha_t / alpha_s * x_s + forward.sqrt() * noise(x_t)
            x_s = self.step.begin()(denoise, process, x_t, t, s, noise)
        return x_s
