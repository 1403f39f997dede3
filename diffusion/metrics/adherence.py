"""Whether samples keep to the controls they were given."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from diffusion.common.hashing import bytes_digest
from diffusion.common.pixels import quantize, scaled
from diffusion.metrics.base import Figure, Measure, SampleBatch, in_sample_order, with_real
from diffusion.metrics.captions.base import over_others
from diffusion.metrics.control_score import SCORES
from diffusion.metrics.real_images import Data

REAL = "real images of the controls"
ALONE = "samples drawn without controls"
EXCHANGED = "samples with the controls exchanged"
SAME = 1 / 255  # mean squared difference of two controls of one picture, at most
ROUNDING = 1e-3  # the distance of what differs by no more
EXACTLY = "donot_use_mm_for_euclid_dist"


class Adherence(Measure):
    """How far the control of a sample, computed anew, agrees with the one it was given.

    For each of the data's `controls`, by its kind (`control_score.SCORES`): of edges F1 within one
    pixel, of regions the intersection over the union, of values the RMSE in grey levels, each the
    mean over the samples. "adherence_NAME@n" is that of samples and their own controls, o;
    "adherence_NAME_shuffled@n" the mean over all other samples' controls, s;
    "adherence_NAME_ceiling@n" what real images of these controls get, c; and
    "adherence_NAME_share@n" = (o − s) / (c − s), 0 where controls are ignored, 1 where they are
    kept to as by real images. It is the figure that counts, as in small pictures much is within one
    pixel by chance; the RMSE's numerator and denominator are both negative. Of a `ControlNet` also
    "adherence_NAME_none@n", what its base gets with the same captions and noise.

    A real image of a control is one of the split `ask` that has it, without captions of validation
    or training; where one is missing, as for a sketch, there are neither ceiling nor share. Real
    images have a ceiling below 1 where the control came with them (`Drawn`). Nothing without
    controls, and nothing of one that cannot be computed of a sample (`Beside`).
    """

    higher_is_better, beside = True, True
    index: list[Tensor]
    seen_of: list[Tensor]
    given: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "seen_of", "given"):
            self.add_state(name, [], "cat")
        self.channels: dict[str, int] = {}
        self._real: tuple[str, dict[str, Tensor]] = ("", {})

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Takes note of the data."""
        super().prepare(data, cache, progress)
        self._real = ("", {})

    def update(self, samples: SampleBatch) -> None:
        """Computes the controls of the images."""
        kinds = {name: control.kind for name, control in self.data.controls.items()}
        given = {k: x for k, x in (samples.controls or {}).items() if kinds[k] is not None}
        if not given:
            return
        self.channels = {name: control.shape[1] for name, control in given.items()}
        self.index.append(self.count(samples))
        self.given.append(torch.cat([*given.values()], 1).float().to(self.device))
        self.seen_of.append(self._look(samples.images).to(self.device))

    def _look(self, images: Tensor) -> Tensor:
        """Returns the controls of images, uint8 (B, C, H, W), one after the other."""
        x = scaled(images)
        return torch.cat([self.data.controls[name](x) for name in self.channels], 1).float()

    def evaluate(self) -> dict[str, Figure]:
        """Returns the figures of each control, nothing of fewer than two samples."""
        self.entries, figures = {"controls": None}, dict[str, Figure]()
        if (n := int(self.seen)) < 2:
            return figures
        seen, given = (
            self._by_name(x.cpu()) for x in in_sample_order(self.index, self.seen_of, self.given)
        )
        fingerprint = bytes_digest(*(x.numpy().tobytes() for x in given.values()))
        if fingerprint != self._real[0]:  # else those of the last validation
            self._real = (fingerprint, self._matching(given))
        self.entries = {"controls": {"given": fingerprint, "of": self._splits}}
        for name in self.channels:
            figures |= self.compared(name, n, seen[name], given[name], self._real[1].get(name))
        return figures

    def uncontrolled(self) -> dict[str, Figure]:
        """Returns "adherence_NAME_none@n"."""
        own = {k: x for k, x in self.evaluate().items() if not (x.real or x.leading)}
        return {k.replace("@", "_none@"): x.floor(x.value, of=ALONE) for k, x in own.items()}

    def compared(
        self, name: str, n: int, seen: Tensor, given: Tensor, real: Tensor | None
    ) -> dict[str, Figure]:
        """Returns the figures of one control."""
        score, key = SCORES[self.data.controls[name].kind or "values"], f"adherence_{name}"
        table = score.table(seen, given)
        own, shuffled = table.diagonal().mean().item(), over_others(table)
        about = (f"{score.title} of {name}", score.phrase, score.better, False, ("controls",))
        figure = {f"{key}@{n}": Figure(own, n, *about)}
        floor = {f"{key}_shuffled@{n}": figure[f"{key}@{n}"].floor(shuffled, of=EXCHANGED)}
        if real is None:
            return figure | floor
        ceiling = torch.cat([score.table(x[None], y[None]) for x, y in zip(real, given)])
        best = ceiling.mean().item()
        figure = with_real(
            figure, {f"{key}@{n}": figure[f"{key}@{n}"].floor(best)}, "ceiling", REAL
        )
        if best != shuffled:
            figure[f"{key}_share@{n}"] = Figure(
                (own - shuffled) / (best - shuffled), n, f"Adherence to {name}",
                "From other samples' controls, 0, to what real images get, 1.",
                "high", True, ("controls",), 1.0, leading=True,
            )  # fmt: skip
        return figure | floor

    @property
    def _splits(self) -> list[str]:
        """Those that controls are of: training's where validation lacks a class."""
        return [self.data.ask] if self.data.ask else ["val", "train"]

    def _by_name(self, controls: Tensor) -> dict[str, Tensor]:
        parts = controls.split([*self.channels.values()], 1)
        return dict(zip(self.channels, parts))

    def _matching(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the controls computed anew of real images that have those given.

        By name, (n, c, H, W); only of names for which every control given has an image.
        """
        best = {name: torch.full((len(x),), torch.inf) for name, x in given.items()}
        found = {name: torch.zeros_like(x) for name, x in given.items()}
        for batch in chain.from_iterable(map(self.data.batches, self._splits)):
            seen = self._by_name(self._look(quantize(batch["image"])))
            for name, wanted in given.items():
                there = batch[name] if name in batch else seen[name]
                rows = wanted.flatten(1), there.float().flatten(1)
                apart, which = torch.cdist(*rows, compute_mode=EXACTLY).min(1)
                nearer = apart < best[name]
                best[name] = torch.where(nearer, apart, best[name])
                found[name] = torch.where(
                    nearer[:, None, None, None], seen[name][which], found[name]
                )
            if all((x < ROUNDING).all() for x in best.values()):
                break
        within = {name: (SAME * x[0].numel()) ** 0.5 for name, x in given.items()}
        return {name: x for name, x in found.items() if (best[name] <= within[name]).all()}
