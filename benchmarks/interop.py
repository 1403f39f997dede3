r"""The Fréchet distance of a model's samples, drawn here and drawn by diffusers from its folder.

    diffusion fit --config configs/quickstart.yaml --config benchmarks/interop.yaml
    diffusion export --to diffusers --ckpt runs/interop/checkpoints/last.ckpt --output runs/interop/out
    python benchmarks/interop.py --ckpt runs/interop/checkpoints/last.ckpt --folder runs/interop/out

Both ways draw several sets from noise of their own; the spread over the sets is the error. diffusers
draws no labels, so the model has none.
"""  # noqa: E501  (commands stay whole)

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import Bench
from diffusers import DDIMPipeline
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.data import Digits
from diffusion.metrics import SampleBatch
from diffusion.systems.diffusion import Diffusion


def figures(bench: Bench, draw: Callable[[int], Tensor], sets: int) -> Tensor:
    """Returns the distance of each of several sets of images in [−1, 1]."""
    found = []
    for i in range(sets):
        values = bench.figures([SampleBatch(quantize(draw(i)))])
        found.append(next(value for name, value in values.items() if name.startswith("fd")))
    return torch.tensor(found)


def main() -> None:
    """Measures, and prints a row a way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--n", type=int, default=500, help="images of a set")
    parser.add_argument("--sets", type=int, default=5)
    args = parser.parse_args()
    data = Digits()
    data.setup("test")
    bench = Bench(data, args.n, args.n, Path(".cache"))
    model = Diffusion.load_from_checkpoint(args.ckpt, map_location="cpu", weights_only=True)
    pipeline = DDIMPipeline.from_pretrained(args.folder)
    pipeline.set_progress_bar_config(disable=True)

    def ours(i: int) -> Tensor:
        return model.generate({}, range(i * args.n, (i + 1) * args.n))

    def theirs(i: int) -> Tensor:
        drawn: Any = pipeline(
            args.n,
            torch.Generator().manual_seed(i),
            num_inference_steps=model.sampler.steps or model.process.T,
            use_clipped_model_output=True,
            output_type="pt",
        )
        return 2 * drawn.images - 1

    for name, draw in (("ours", ours), ("diffusers", theirs)):
        values = figures(bench, draw, args.sets)
        print(f"{name}: FD-LeNet@{args.n} {values.mean():.3f} ± {values.std():.3f} "
              f"(mean and spread of {args.sets} sets)")  # fmt: skip


if __name__ == "__main__":
    main()
