"""What each change of a recipe brings in the same time.

`python benchmarks/search.py --root DATA` trains every row of benchmarks/search.yaml for as long as
`steps` steps of its `config` take, and measures samples against the half of the training
images that the extractor has not seen (Fashion-MNIST has no validation split). A row's steps
follow from the time of its step beside the config's, taken in turn in one process, so that neither
the machine nor its other work decides. Rows that the CSV has are not trained again. `--split test`
judges what was selected, once.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from bench import Row, fill
from torch import Tensor

from diffusion.common.pixels import quantize
from diffusion.condition import Condition
from diffusion.data import FashionMNIST, Images
from diffusion.metrics import Extractor, LeNet
from diffusion.metrics.distance import frechet
from diffusion.metrics.real_images import selected
from diffusion.noise import SeededNoise
from diffusion.pipeline import Pipeline
from diffusion.systems.averages import EMA

ROUNDS = 8  # of two steps each; the fastest counts
SHORTEST = 4  # warm-up is at most this part of a run


class Recipe:
    """A row of the table: the configuration with some sections laid over it.

    Args:
        config: The configuration.
        over: Sections model, data, ema and trainer, as in a configuration; `as_it_is` leaves the
            schedule of the rate alone.
        every: A model section that is laid over all rows.
    """

    def __init__(
        self, config: Mapping[str, Any], over: Mapping[str, Any], every: Mapping[str, Any]
    ) -> None:
        self.sections = [config["model"], over.get("model", {}), every]
        reading = config["data"]["init_args"] | over.get("data", {})
        self.batch_size: int = reading["batch_size"]
        self.flip: bool = reading.get("flip", False)
        self.ema: dict[str, Any] = over.get("ema", config["ema"])
        self.clip = over.get("trainer", config["trainer"]).get("gradient_clip_val")
        self.whole = not over.get("as_it_is", False)

    def pipeline(self, seed: int, steps: int) -> Pipeline:
        """Returns an untrained model whose rate reaches 0 at the last step, but for `as_it_is`."""
        L.seed_everything(seed, verbose=False)
        rate = {"warmup": min(100, steps // SHORTEST), "total": steps}
        over = [{"lr_scheduler": {"class_path": "Warmup", "init_args": rate}}] * self.whole
        return Pipeline.from_config(*self.sections, *over)


def training_step(recipe: Recipe, data: Images) -> Callable[[], None]:
    """Returns a training step of a recipe, on noise in place of pictures."""
    system = recipe.pipeline(0, 1000).system.train()
    x = torch.randn(recipe.batch_size, *data.shape)
    label = torch.arange(recipe.batch_size) % (data.num_classes or 1)
    optimizer, cond = system.configure_optimizers()["optimizer"], Condition({"label": label})

    def step() -> None:
        optimizer.zero_grad()
        t, eps = system.objective.draw(system.process, x, SeededNoise(0, range(len(x))))
        system.objective(system.denoiser, x, cond, t, eps).mean().backward()
        optimizer.step()

    return step


def step_seconds(steps: Sequence[Callable[[], None]]) -> list[float]:
    """Returns the processor seconds of each training step, taken in turn."""
    least = [float("inf")] * len(steps)
    for turn in range(ROUNDS):
        for i, step in list(enumerate(steps))[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            for _ in range(2):
                step()
            least[i] = min(least[i], (time.process_time() - start) / 2)
    return least


class Judge:
    """FD and label accuracy of a trained model's samples, against a split of real pictures."""

    def __init__(self, data: Images, extractor: Extractor, split: str, n: int) -> None:
        self.extractor = extractor
        self.labels = [i % (data.num_classes or 1) for i in range(n)]
        extractor.prepare(data, Path(".cache"))
        rule = extractor.reference if split == "train" else "all"
        self.real = torch.cat([extractor(x["image"])[0] for x in selected(data, split, rule)])

    def __call__(self, pipeline: Pipeline, seed: int) -> Row:
        """Returns the figures of n samples, every class in turn."""
        return self.figures(pipeline.draw(labels=self.labels, seed=seed, batch_size=100))

    def figures(self, drawn: Tensor) -> Row:
        """Returns the figures of samples in [-1, 1], as many as there are labels."""
        found = [self.extractor(x) for x in quantize(drawn).split(250)]
        right = torch.cat([logits for _, logits in found]).argmax(1) == torch.tensor(self.labels)
        fd = frechet(torch.cat([features for features, _ in found]), self.real)
        return {"fd": round(fd, 3), "label_accuracy": round(right.double().mean().item(), 3)}


def arguments(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Returns the command line of a search NAME.yaml, whose table is NAME.csv."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--search", type=Path, default=Path(f"benchmarks/{name}.yaml"))
    parser.add_argument("--root", default="data", help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path(f"docs/results/{name}.csv"))
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--steps", type=int, help="of the configuration; by default the file's")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--split", choices=["train", "test"], default="train")
    parser.add_argument("--n", type=int, default=500)
    return parser


def read(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Returns the search, its configuration, and the steps of that whose time each row has."""
    search = yaml.safe_load(args.search.read_text())
    if unknown := {*(args.only or ())} - {*search["rows"]}:
        raise SystemExit(f"--only: {sorted(unknown)}; expected rows of {args.search}")
    config = yaml.safe_load(Path(search["config"]).read_text())
    return search, config, args.steps or search["steps"]


def fill_rows(
    args: argparse.Namespace,
    rows: Mapping[str, Any],
    steps: int,
    trained: Callable[[Mapping[str, Any], int], Row],
) -> None:
    """Trains what the table does not have, by row and seed."""
    table: list[tuple[Row, Callable[[], Row]]] = []
    for seed in args.seeds:
        for name, row in rows.items():
            if not args.only or name in args.only:
                key: Row = {"row": name, "steps": steps, "seed": seed, "split": args.split}
                table.append((key, partial(trained, row or {}, seed)))
    fill(args.out, table)


def main() -> None:
    """Trains and measures what is not there yet."""
    args = arguments(__doc__, "search").parse_args()
    search, config, steps = read(args)
    every = search.get("every", {})
    judge = Judge(FashionMNIST(root=args.root), LeNet(), args.split, args.n)
    base = Recipe(config, {"as_it_is": True}, every)

    def trained(over: Mapping[str, Any], seed: int) -> Row:
        recipe = Recipe(config, over, every)
        reading = {"batch_size": recipe.batch_size, "flip": recipe.flip, "num_workers": 0}
        data = FashionMNIST(root=args.root, **reading)
        of_base, of_this = step_seconds([training_step(x, data) for x in (base, recipe)])
        most = round(steps * of_base / of_this)
        pipeline, start = recipe.pipeline(seed, most), time.process_time()
        kept = {"max_steps": most, "gradient_clip_val": recipe.clip, "limit_val_batches": 0}
        pipeline.fit(data, None, callbacks=[EMA(**recipe.ema)], **kept)
        spent = {"trained": most, "seconds": round(time.process_time() - start)}
        size = sum(x.numel() for x in pipeline.system.parameters())
        return {"parameters": size, **spent, **judge(pipeline, 1000 + seed)}

    fill_rows(args, search["rows"], steps, trained)


if __name__ == "__main__":
    main()
