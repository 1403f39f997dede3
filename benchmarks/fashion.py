"""The tables and pictures of docs/results.md, from the run of configs/ddpm_fashion.yaml.

`python benchmarks/fashion.py --root DATA` (or `make tables`) after
`diffusion fit --config configs/ddpm_fashion.yaml --data.root DATA`. Writes CSV and PNG into
docs/results/. Rows that a CSV already has are not measured again, so that an interrupted call goes
on where it stopped; delete a CSV to measure anew.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from bench import Bench, Row, fill, grid, plot, ways

from diffusion.data import FashionMNIST
from diffusion.guidance import ClassifierFree, Static
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.diffusion import Diffusion


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, default=Path("runs/ddpm_fashion"))
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(FashionMNIST(root=args.root), args.n, 250, Path(".cache"))

    def load(path: Path) -> Diffusion:
        return Diffusion.load_from_checkpoint(path, map_location=args.device)

    checkpoints = sorted((args.run / "checkpoints").glob("step_*.ckpt"))
    model, static = load(checkpoints[-1]), Static()
    images = 64  # a step, on one process

    def ddim(key: Row) -> Sampler:
        return Sampler(DDIM(float(key["eta"])), int(key["steps"]), [static])

    table: list[Row] = [{"eta": e, "steps": s} for s in (5, 10, 20, 50, 100, 200) for e in (0, 1)]
    rows = fill(args.out / "ddim.csv", ways(bench, model, table, ddim))
    plot(args.out / "ddim.png", rows, "steps", ["fd_lenet", "kid_lenet"], by="eta")
    few = [ddim({"eta": e, "steps": s}) for e in (0, 1) for s in (5, 10, 20, 50, 200)]
    grid(args.out / "ddim_samples.png", model, few)

    def guided(key: Row) -> Sampler:
        return Sampler(DDIM(), 25, [ClassifierFree(float(key["scale"])), static])

    scales: list[Row] = [{"scale": s} for s in (0, 0.5, 1, 1.5, 2, 3, 5, 8)]
    rows = fill(args.out / "guidance.csv", ways(bench, model, scales, guided))
    panels = ["fd_lenet", "kid_lenet", "label_accuracy"]
    plot(args.out / "guidance.png", rows, "scale", panels, log=False)
    grid(args.out / "guidance_samples.png", model, [guided(s) for s in scales])

    def at(path: Path) -> Callable[[], Row]:
        return lambda: bench(load(path), Sampler(DDIM(), 20, [static]), path.stem)

    steps = [(int(path.stem.split("_")[1]), path) for path in checkpoints]
    rows = fill(
        args.out / "curve.csv", [({"step": s, "images": s * images}, at(path)) for s, path in steps]
    )
    plot(args.out / "curve.png", rows, "images", ["fd_lenet", "kid_lenet"])


if __name__ == "__main__":
    main()
