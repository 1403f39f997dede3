"""The 2-D toy of autoguidance: data, no guidance, classifier-free guidance, autoguidance.

    python benchmarks/autoguidance.py --good CHECKPOINT --bad CHECKPOINT --output PICTURE

Of n points a kind, half of each class: the mean of log p(x | label) under the true mixture, and the
share of the leaves' components that some point belongs to. The ceiling of both is n fresh points of
the data; the floor a normal distribution with each class's own mean and covariance.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data import Tree
from diffusion.guidance import Autoguidance, ClassifierFree, Guidance
from diffusion.pipeline import Pipeline
from diffusion.sampler import Sampler
from diffusion.step import Heun
from diffusion.systems.frozen import TrainedDenoiser


def picture(clouds: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """Draws points in the colours of their classes, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(clouds), 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (title, x) in zip(figure.subplots(1, len(clouds)), clouds.items()):
        for y, colour in ((1, "silver"), (0, "darkorange")):
            ax.scatter(*x[labels == y].T, s=1, c=colour, linewidths=0)
        ax.set(title=title, xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[])
        ax.set_aspect("equal")
    figure.savefig(path)


def normal(tree: Tree, labels: Tensor) -> Tensor:
    """Returns points of each class's normal distribution."""
    x = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0)).double()
    for y in (0, 1):
        w, m, L = tree.weights[y], tree.means[y], tree.factors[y]
        mean = (w[:, None] * m).sum(0)
        off = m - mean
        second = off[:, :, None] * off[:, None, :] + L @ L.mT
        factor = torch.linalg.cholesky((w[:, None, None] * second).sum(0))
        x[labels == y] = x[labels == y] @ factor.mT + mean
    return x


def main() -> None:
    """Draws, measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good", required=True)
    parser.add_argument("--bad", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0, 3.0, 4.0])
    given = parser.parse_args()
    tree, pipeline = Tree(points=2 * given.n), Pipeline.from_pretrained(given.good)
    tree.setup("test")
    labels, bad = torch.arange(given.n) % 2, TrainedDenoiser(given.bad)
    real = torch.empty(given.n, 2)
    batch = tree.test_set.__getitems__(range(2 * given.n))
    for y in (0, 1):
        own = batch["image"][batch["label"] == y]
        real[labels == y] = own[: int((labels == y).sum())]

    def drawn(*guidance: Guidance) -> Tensor:
        sampler = Sampler(Heun(), given.steps, guidance, "karras")
        return pipeline.draw(given.n, labels=[0, 1], sampler=sampler, batch_size=2500)

    clouds: dict[str, Tensor] = {"data": real, "no guidance": drawn()}
    rows: dict[str, Tensor] = {**clouds, "a normal distribution a class": normal(tree, labels)}
    for scale in given.scales:
        rows[f"classifier-free, s = {scale:g}"] = drawn(ClassifierFree(scale))
        rows[f"autoguidance, w = {scale:g}"] = drawn(Autoguidance(scale, bad))
    last = given.scales[-1]
    for name in (f"classifier-free, s = {last:g}", f"autoguidance, w = {last:g}"):
        clouds[name] = rows[name]
    picture(clouds, labels, given.output)
    print(f"| n = {given.n:,} | mean log p | leaves hit |\n|---|---|---|")
    for name, x in rows.items():
        parts = zip(x.split(1000), labels.split(1000))
        log_p = torch.cat([tree.log_density(*part) for part in parts])
        print(f"| {name} | {log_p.mean():.2f} | {tree.leaves_hit(x, labels):.1%} |", flush=True)


if __name__ == "__main__":
    main()
