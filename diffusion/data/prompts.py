"""What samples are asked for in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .image_set import ImageSet


class Prompts:
    """Prompts in turn, or the captions of pictures in a fixed random order.

    Sample i has the prompt i mod len(prompts). Without prompts it has caption and label of picture
    order[i mod N]; with `labels` it has the class labels[i mod n], and of its N_c pictures number
    order[i // n mod N_c].

    Args:
        prompts: What to ask for, or None.
        ask: The split whose captions are asked for when there are no prompts.
        splits: The splits there are.

    Raises:
        ValueError: There is no prompt in the list, or no such split.
    """

    def __init__(self, prompts: list[str] | None, ask: str, splits: Sequence[str]) -> None:
        if prompts is not None and not prompts:
            raise ValueError("prompts: [], expected null or at least one")
        if ask not in splits:
            raise ValueError(f"ask: {ask!r}, expected one of {', '.join(splits)}")
        self.prompts = prompts
        self.ask = ask

    def request(
        self, numbers: Sequence[int], pictures: ImageSet | None, labels: list[int] | None
    ) -> dict[str, Any]:
        """Say what samples are to be.

        Args:
            numbers: The numbers of B samples.
            pictures: The split `ask`; not needed with prompts.
            labels: The classes to ask for in turn, or None.

        Returns:
            "index": int64 (B,), "text": list of B strings, and, without prompts, what else is known
            of the pictures.
        """
        batch: dict[str, Any] = {"index": torch.tensor(numbers)}
        if self.prompts is not None:
            return {**batch, "text": [self.prompts[i % len(self.prompts)] for i in numbers]}
        assert pictures is not None
        return {**batch, **pictures.conditions(self.rows(numbers, pictures, labels))}

    def rows(
        self, numbers: Sequence[int], pictures: ImageSet, labels: list[int] | None
    ) -> list[int]:
        """Which pictures the samples are asked for by.

        Raises:
            ValueError: The split is empty, or has no picture of a class.
        """
        order = np.random.RandomState(0).permutation(len(pictures))
        if len(order) == 0:
            raise ValueError(f"ask: {self.ask!r} has no pictures, expected another split")
        if labels is None:
            return [int(order[i % len(order)]) for i in numbers]
        classes = pictures.conditions(order.tolist())["label"].numpy()
        of_class = {label: order[classes == label] for label in labels}
        if empty := [label for label, rows in of_class.items() if len(rows) == 0]:
            raise ValueError(
                f"labels: {empty[0]} has no picture in split {self.ask!r}, expected another class "
                "or another split in `ask`"
            )
        turns = ((of_class[labels[i % len(labels)]], i // len(labels)) for i in numbers)
        return [int(rows[turn % len(rows)]) for rows, turn in turns]
