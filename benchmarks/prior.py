"""What a prior's embeddings of pictures are worth, beside simpler ways from a text to one.

`python benchmarks/prior.py --prior runs/dalle2_prior_emoji/checkpoints/last.ckpt` draws ẑ for
captions of seen and of unseen concepts and writes the table docs/results/prior.csv. Of each way:

    own        mean cos(ẑ, z), z of the picture that the caption is of
    other      the same with the other pictures of the split
    recall@1   how often the own picture's z is the nearest to ẑ among the n
    caption@1  how often the own caption's embedding is; two candidates are chosen by that
    variance   tr Cov(ẑ) / tr Cov(z) over captions: of a way that says the mean it is small
    spread     E‖ẑ − ẑ'‖² / E‖ẑ − z‖², ẑ and ẑ' by other noise: 1 if z is a draw like any other

Regressions are linear, with the quadratic penalty that is best for the validation split.
"""

import argparse
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean

import kept
import torch
import torch.nn.functional as F
from bench import SPLITS, Row, fill
from torch import Tensor

from diffusion.data import Emoji
from diffusion.sampler import Sampler
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.texts import remember

N, SEEDS, AT_ONCE = 150, 2, 150
PENALTIES = [10.0**k for k in range(-1, 6)]
Pairs = dict[str, Tensor]


def pairs(
    model: Diffusion, data: Emoji, split: str, n: int | None = None
) -> tuple[Pairs, list[str]]:
    """Returns captions, and of each: its picture's z, √D g, and the mean of MiniLM's states."""
    found: dict[str, list[Tensor]] = {"z": [], "text": [], "states": []}
    texts = list[str]()
    for batch in data.batches(split, n=n):
        read = model.denoiser.contract.read({"text": batch["text"]})
        mask = read["text_mask"][..., None]
        found["z"].append(model.encoded(batch["image"]))
        found["text"].append(read["text_pooled"])
        found["states"].append((read["text"] * mask).sum(1) / mask.sum(1))
        texts += batch["text"]
    return {name: torch.cat(parts) for name, parts in found.items()}, texts


class Ridge:
    """W [x, 1] with the least ‖W [x, 1] − z‖² + λ ‖W‖² over pairs, the constant left out."""

    def __init__(self, x: Tensor, z: Tensor, penalty: float) -> None:
        wide = F.pad(x.double(), (0, 1), value=1)
        costs = torch.full((wide.shape[1],), penalty, dtype=torch.float64)
        costs[-1] = 0
        self.weight = torch.linalg.solve(wide.T @ wide + costs.diag(), wide.T @ z.double())

    def __call__(self, x: Tensor) -> Tensor:
        """Returns what it says of rows x."""
        return (F.pad(x.double(), (0, 1), value=1) @ self.weight).float()


def best(train: Pairs, val: Pairs, of: str) -> Ridge:
    """Returns the regression that is best for the validation split."""
    each = [Ridge(train[of], train["z"], penalty) for penalty in PENALTIES]
    return min(each, key=lambda one: F.mse_loss(one(val[of]), val["z"]).item())


def draws(model: Diffusion, texts: list[str]) -> list[Tensor]:
    """Returns ẑ of all texts, one tensor a seed: sample i of seed k has noise 100,000 k + i."""
    found = list[Tensor]()
    for seed in range(SEEDS):
        every = kept.parts(len(texts), seed, AT_ONCE)
        parts = [model.generate({"text": [texts[i] for i in part]}, noise) for part, noise in every]
        found.append(torch.cat(parts))
    return found


def nearest(one: Tensor, other: Tensor, c: Tensor) -> Tensor:
    """Returns of two candidates the one nearer to c, row by row, as `Candidates` does."""
    first = F.cosine_similarity(one, c) >= F.cosine_similarity(other, c)
    return torch.where(first[:, None], one, other)


def figures(made: list[Tensor], real: Pairs) -> Row:
    """Returns the means over the draws, and their spread."""
    z, text = F.normalize(real["z"]), F.normalize(real["text"])
    own = torch.arange(len(z))
    rows = list[dict[str, float]]()
    for one in made:
        to_image, to_text = F.normalize(one) @ z.T, F.normalize(one) @ text.T
        total = to_image.sum() - to_image.diag().sum()
        rows.append({
            "own": to_image.diag().mean().item(),
            "other": total.item() / (len(z) * (len(z) - 1)),
            "recall@1": (to_image.argmax(1) == own).float().mean().item(),
            "caption@1": (to_text.argmax(1) == own).float().mean().item(),
            "variance": (one.var(0).sum() / real["z"].var(0).sum()).item(),
        })  # fmt: skip
    found: Row = {name: round(fmean(row[name] for row in rows), 4) for name in rows[0]}
    apart = [(a - b).square().sum(1).mean().item() for a, b in combinations(made, 2)]
    error = fmean((one - real["z"]).square().sum(1).mean().item() for one in made)
    return found | {"spread": round(fmean(apart) / error, 3) if apart else ""}


def main() -> None:
    """Draws, and fills the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="runs/dalle2_prior_emoji/checkpoints/last.ckpt")
    parser.add_argument("--root", default="data")
    parser.add_argument("--out", type=Path, default=Path("docs/results/prior.csv"))
    options = parser.parse_args()
    model = Diffusion.load_from_checkpoint(options.prior).eval()
    model.sampler = Sampler(model.sampler.step, model.sampler.steps)  # one candidate at a time
    data = Emoji(root=options.root, size=32)
    data.setup("fit")
    remember(model, data, Path(".cache"), None)
    (train, _), (val, _) = (pairs(model, data, split) for split in ("train", "val"))
    linear = {of: best(train, val, of) for of in ("text", "states")}
    for split, name in SPLITS.items():
        real, texts = pairs(model, data, split, N)
        c, one = real["text"], draws(model, texts)
        ways = {
            "prior": one,
            "prior, the nearer of two": [
                nearest(one[i], one[i + 1], c) for i in range(0, SEEDS, 2)
            ],
            "the text's embedding": [c],
            "regression on the text's embedding": [linear["text"](c)],
            "regression on MiniLM's mean": [linear["states"](real["states"])],
            "the picture's own": [real["z"]],
        }
        for way, made in ways.items():
            key: Row = {"captions": name, "way": way, "n": str(len(c))}
            fill(options.out, [(key, partial(figures, made, real))])


if __name__ == "__main__":
    main()
