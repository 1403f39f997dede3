r"""The tables of docs/results.md on variance, guidance by a classifier, networks and solvers.

`python benchmarks/adm.py --root DATA` after

    diffusion fit --config configs/ddpm_fashion.yaml --trainer.max_steps 2400 \
      --model.lr_scheduler.total 2400 --ema.decay 0.999 \
      --trainer.default_root_dir runs/ddpm_fashion_short
    diffusion fit --config configs/iddpm_fashion.yaml
    diffusion fit --config configs/iddpm_fashion.yaml --config configs/objective/vlb.yaml \
      --trainer.default_root_dir runs/iddpm_fashion_vlb
    diffusion fit --config configs/adm_fashion.yaml
    diffusion fit --config configs/classifier_fashion.yaml

Writes CSV and PNG into docs/results/; rows that are there already are not measured again.
`--only solvers` makes one table.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from bench import Bench, Row, fill, grid, plot, ways

from diffusion.data import FashionMNIST
from diffusion.guidance import Classifier, ClassifierFree, Guidance, Static
from diffusion.metrics import Fidelity, LeNet
from diffusion.process import Variance
from diffusion.sampler import Sampler, Spacing
from diffusion.step import DDIM, DDPM, DPMSolver, Heun, Step, UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import Trained

RUNS = {
    "simple": "ddpm_fashion_short",
    "hybrid": "iddpm_fashion",
    "vlb": "iddpm_fashion_vlb",
    "adm": "adm_fashion",
    "classifier": "classifier_fashion",
}
SCALES = (0, 1, 2, 4, 8)
PANELS = ("fd_lenet", "precision_adm_lenet", "recall_adm_lenet", "label_accuracy")


class Tables:
    """Each method makes one table.

    Args:
        bench: How a way of sampling is measured.
        runs: The folder of the runs.
        out: Where CSV and PNG go.
        device: Where to sample.
    """

    def __init__(self, bench: Bench, runs: Path, out: Path, device: str) -> None:
        self.bench, self.runs, self.out, self.device = bench, runs, out, device

    def checkpoint(self, name: str) -> Path:
        """Returns the last checkpoint of a run."""
        return self.runs / RUNS[name] / "checkpoints" / "last.ckpt"

    def model(self, name: str) -> Diffusion:
        """Returns a trained model."""
        return Diffusion.load_from_checkpoint(self.checkpoint(name), map_location=self.device)

    def variance(self) -> None:
        """Fixed against learned variance, ancestral sampling with few steps."""
        rows: list[dict[str, str]] = []
        pairs: Sequence[tuple[str, Variance]] = (
            ("simple", "small"),
            ("simple", "large"),
            ("hybrid", "learned"),
        )
        for name, variance in pairs:
            keys: list[Row] = [
                {"model": name, "variance": variance, "steps": s} for s in (10, 25, 50, 100)
            ]

            def make(key: Row, variance: Variance = variance) -> Sampler:
                return Sampler(DDPM(variance), int(key["steps"]), [Static()])

            rows = fill(self.out / "variance.csv", ways(self.bench, self.model(name), keys, make))
        for row in rows:
            row["Σ"] = f"{row['variance']} (L_{row['model']})"
        plot(self.out / "variance.png", rows, "steps", ["fd_lenet", "kid_lenet"], by="Σ")

    def guidance(self) -> None:
        """By a classifier against without one, at equal numbers of network evaluations."""
        model, trained = self.model("adm"), Trained(str(self.checkpoint("classifier")))

        def free(s: float) -> list[Guidance]:
            return [ClassifierFree(s), Static()]

        def conditional(s: float) -> list[Guidance]:
            return [Classifier(s, trained), Static()]

        def unconditional(s: float) -> list[Guidance]:
            return [ClassifierFree(0), Classifier(s, trained), Static()]

        methods: dict[str, Callable[[float], list[Guidance]]] = {
            "classifier-free": free,
            "classifier, conditional model": conditional,
            "classifier, unconditional model": unconditional,
        }
        rows: list[dict[str, str]] = []
        for name, guides in methods.items():
            keys: list[Row] = [{"method": name, "scale": s} for s in SCALES]

            def make(key: Row, name: str = name, guides=guides) -> Sampler:  # noqa: ANN001
                s = float(key["scale"])
                twice = name == "classifier-free" and s not in (0, 1)  # evaluations a step
                return Sampler(DDIM(), 20 if twice else 40, guides(s))

            rows = fill(self.out / "classifier_guidance.csv", ways(self.bench, model, keys, make))
            few = [make({"scale": s}) for s in SCALES]
            short = name.split(",")[-1].strip().split(" ")[0].replace("-", "_")
            grid(self.out / f"guidance_{short}.png", model, few)
        plot(self.out / "classifier_guidance.png", rows, "scale", PANELS, by="method", log=False)

    def networks(self) -> None:
        """DDPM's network against ADM's after equally long training."""
        for name in ("hybrid", "adm"):
            model = self.model(name)
            keys: list[Row] = [
                {"network": name, "parameters": sum(p.numel() for p in model.parameters())}
            ]

            def make(key: Row) -> Sampler:
                return Sampler(DDPM("learned"), 50, [Static()])

            fill(self.out / "networks.csv", ways(self.bench, model, keys, make))

    def solvers(self) -> None:
        """All solvers at equal numbers of network evaluations."""
        steps: dict[str, Callable[[], Step]] = {
            "DDPM": DDPM,
            "DDIM": DDIM,
            "Heun": Heun,
            "DPM-Solver++ 2M": DPMSolver,
            "SDE-DPM-Solver++ 2M": lambda: DPMSolver(eta=1.0),
            "UniPC-2": UniPC,
        }
        spacings: Sequence[Spacing] = ("trailing", "log_snr")
        keys: list[Row] = [
            {"solver": name, "spacing": spacing, "nfe_asked": nfe}
            for name, spacing, nfe in product(steps, spacings, (5, 8, 10, 15, 20, 50))
            if spacing == "trailing" or (name != "DDPM" and nfe < 50)
        ]

        def make(key: Row) -> Sampler:
            name, nfe = str(key["solver"]), int(key["nfe_asked"])
            n = (nfe + 1) // 2 if name == "Heun" else nfe
            return Sampler(steps[name](), n, [Static()], key["spacing"])  # pyright: ignore

        rows = fill(self.out / "solvers.csv", ways(self.bench, self.model("simple"), keys, make))
        for row in rows:  # a panel each
            panel = f"fd_lenet, {row['spacing']}"
            row |= {panel: row["fd_lenet"], f"{panel}_floor": row["fd_lenet_floor"]}
        panels = [f"fd_lenet, {spacing}" for spacing in spacings]
        plot(self.out / "solvers.png", rows, "nfe", panels, by="solver")

    def bits(self) -> None:
        """Bits/dim by objective, from the likelihood.json that `diffusion test` left."""
        for name in ("simple", "hybrid", "vlb"):
            path = self.runs / RUNS[name] / "likelihood.json"
            print(name, {k: v for k, v in json.loads(path.read_text()).items() if k != "by_t"})


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = [name for name, value in vars(Tables).items() if callable(value) and name[0] != "_"]
    tables = [name for name in names if name not in ("checkpoint", "model")]
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=tables, nargs="*", default=tables)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    data, extractor = FashionMNIST(root=args.root), LeNet()
    for name in args.only:
        # Precision, recall and their kin take a quarter of a minute a row.
        more = [Fidelity(extractor)] if name in ("guidance", "networks") else []
        bench = Bench(data, args.n, 250, Path(".cache"), extractor, more)
        getattr(Tables(bench, args.runs, args.out, args.device), name)()


if __name__ == "__main__":
    main()
