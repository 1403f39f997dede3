"""How much of what captions say is true, and how much of what is true they say."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.data.captioned_images import Factual
from diffusion.systems import accuracy

SOURCES = ("written", "floor", "ceiling")
MARKS = {
    "floor": ("black", "another picture's caption, or tokens beside another picture"),
    "ceiling": ("red", "the true caption"),
}
Facts = Mapping[str, frozenset[str]]


def counts(pairs: Iterable[tuple[Facts, Facts]]) -> dict[str, list[int]]:
    """Returns how many facts are said and true, said, and true, over all pictures, by kind.

    Args:
        pairs: What is said and what is true of each picture.
    """
    found: dict[str, list[int]] = {}
    for said, true in pairs:
        for kind, facts in true.items():
            here, spoken = found.setdefault(kind, [0, 0, 0]), said.get(kind, frozenset())
            for i, n in enumerate((len(facts & spoken), len(spoken), len(facts))):
                here[i] += n
    return found


class Tally:
    """Sums over all pictures of what was written, a floor and a ceiling.

    Args:
        data: What knows the facts.
        device: Where the sums are.
    """

    def __init__(self, data: Factual, device: torch.device) -> None:
        self.data, self.kinds = data, sorted(next(iter(data.truth.values())))
        self.sums = torch.zeros(len(SOURCES), len(self.kinds), 3, device=device)

    def add(self, written: Sequence[str], others: Sequence[str], own: Sequence[str]) -> None:
        """Adds pictures; those whose own caption is of none that the data knows are left out.

        Args:
            written: A caption of each.
            others: That of some other picture, for each.
            own: The true one.
        """
        truth = [self.data.truth.get(text) for text in own]
        for i, texts in enumerate((written, others, own)):
            said = ((self.data.said(text), true) for text, true in zip(texts, truth) if true)
            found = counts(said)
            new = [found.get(kind, [0, 0, 0]) for kind in self.kinds]
            self.sums[i] += torch.tensor(new).to(self.sums)

    def figures(self, strategy: Any) -> dict[str, float]:
        """Returns precision, recall and hallucination of each kind, those of 0 left out.

        Precision is the share of what is said that is true, recall the share of what is true that
        is said, and hallucination 1 − precision, over all facts of all pictures. Those of the floor
        and the ceiling end with "_floor" and "_ceiling".

        Args:
            strategy: The Trainer's.
        """
        sums: Tensor = strategy.reduce(self.sums.clone(), reduce_op="sum").double().cpu()
        found: dict[str, float] = {}
        for source, rows in zip(SOURCES, sums.tolist()):
            suffix = "" if source == "written" else f"_{source}"
            for kind, (both, said, true) in zip(self.kinds, rows):
                if said:
                    found[f"{kind}_precision{suffix}"] = both / said
                    found[f"{kind}_hallucination{suffix}"] = 1 - both / said
                if true:
                    found[f"{kind}_recall{suffix}"] = both / true
        return found


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Plots precision and recall of each kind as bars, with marks at floor and ceiling.

    Args:
        record: With "figures", as `Tally.figures` returns them among others.
        path: Where to.
    """
    figures: Mapping[str, float] = record["figures"]
    names = [x for x in figures if x.endswith(("_precision", "_recall", "token_accuracy"))]
    with accuracy.axes(path, "share") as ax:
        ax.bar(range(len(names)), [figures[name] for name in names], 0.7)
        for source, (colour, label) in MARKS.items():
            there = [(i, f"{name}_{source}") for i, name in enumerate(names)]
            there = [(i, name) for i, name in there if name in figures]
            values = [figures[name] for _, name in there]
            places = [i for i, _ in there]
            ax.scatter(places, values, marker="_", s=300, color=colour, zorder=3, label=label)
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
