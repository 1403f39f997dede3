"""Precision, recall, density and coverage by name: how many of which images, in whose features."""

from pathlib import Path

from torch import Tensor

from diffusion.metrics.base import Figure, in_sample_order, with_real
from diffusion.metrics.distance import GatheredDistance
from diffusion.metrics.features.base import Extractor
from diffusion.metrics.manifold import density_coverage, f1, precision_recall
from diffusion.metrics.real_images import Data, random_rows

ADM_REFERENCES = 10_000
K, K_COVERAGE = 3, 5  # the papers'
USUAL = {"adm": "inception", "k19": "vgg16"}  # the features that a convention's name implies
WORDS = {"adm": "as ADM", "k19": "as Kynkäänniemi et al."}
CONVENTIONS = {
    "adm": "Sets as in ADM's evaluator: 10,000 reference images, or all, against all samples.",
    "k19": "Sets as in Kynkäänniemi et al. 2019: as many reference images as samples.",
}
LEADING = ("precision", "recall", "coverage")
PHRASES = {
    "precision": "Share of samples that lie among real images.",
    "recall": "Share of real images that lie among samples.",
    "f1": "Harmonic mean of precision and recall.",
    "density": "Real neighbourhoods of a sample; 1 if it were real.",
    "coverage": "Share of real images with a sample nearby.",
}


class Fidelity(GatheredDistance):
    """Precision, recall, F1, density and coverage at n, and with their ceiling at n'.

    "adm" is the evaluator of Dhariwal & Nichol 2021 (arXiv:2105.05233): 10,000 reference images,
    or all if there are fewer, against all n samples, in Inception's features. "k19" is
    Kynkäänniemi et al. 2019: as many reference images as samples, m of each, in VGG16's. The two
    are not comparable. A name has the extractor too where it is not the convention's own, and k
    where it is not 3 (5 for density and coverage, Naeem et al. 2020, which take k19's sets):
    precision_adm@n and precision_k19@m, but precision_adm_lenet@n, precision_k19_lenet_k5@m,
    density_lenet@m. The choice of reference images is random, with a fixed seed.

    The ceiling is what n' = min(n, number of held-out images) held-out real images get in place of
    the samples, "_ceiling@n'". It is no bound: a model can buy precision with variety.

    Args:
        extractor: Whose features; they are gathered.
        k: Which neighbour the balls of precision and recall reach to.
        k_coverage: Which neighbour those of density and coverage reach to.
    """

    higher_is_better = True

    def __init__(self, extractor: Extractor, k: int = K, k_coverage: int = K_COVERAGE) -> None:
        super().__init__(extractor)
        self.k, self.k_coverage = k, k_coverage
        self.entry = f"features_{extractor.name}"

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Warns where there are too few real images."""
        super().prepare(data, cache, progress)
        most = max(self.k, self.k_coverage)
        if len(self.reference) <= most:
            self.warnings.append(
                f"reference: {len(self.reference)} images; expected more than k = {most} for "
                "precision, recall, density and coverage"
            )
            self.about = {**self.about, "warning": self.warnings[-1]}

    def evaluate(self) -> dict[str, Figure]:
        """Returns the figures; none where there are not more than k real images."""
        most, reference = max(self.k, self.k_coverage), self.reference.to(self.device)
        (features,) = in_sample_order(self.index, self.features)
        about = self.entries["reference"]
        compared = {"rule": about["rule"], **sets(len(features), len(reference))}
        self.entries = {"reference": about, self.entry: {**self.about, **compared}}
        if len(reference) <= most:
            return {}
        out = self._against(reference, features)
        real = random_rows(self.held_out, len(features)).to(self.device)
        if len(real) <= most:
            return out
        as_many, ceilings = features[: len(real)], self._against(reference, real)
        return out | with_real(self._against(reference, as_many), ceilings, "ceiling")

    def _against(self, reference: Tensor, features: Tensor) -> dict[str, Figure]:
        """Returns the figures of features (n, D), with as many samples as each convention asks."""
        sizes, out = sets(len(features), len(reference)), {}
        found: dict[tuple[int, int], tuple[float, float]] = {}  # both may have the same sets
        for convention, usual in USUAL.items():
            n, m = sizes[convention]["generated"], sizes[convention]["real"]
            if (n, m) not in found:
                found[n, m] = precision_recall(features[:n], random_rows(reference, m), self.k)
            p, r = found[n, m]
            which = {convention: WORDS[convention]} | self._words(self.k, K, usual)
            for kind, value in {"precision": p, "recall": r, "f1": f1(p, r)}.items():
                out |= self._figure(kind, value, n, which, CONVENTIONS[convention])
        m = sizes["k19"]["real"]
        d, c = density_coverage(features[:m], random_rows(reference, m), self.k_coverage)
        for kind, value in {"density": d, "coverage": c}.items():
            out |= self._figure(kind, value, m, self._words(self.k_coverage, K_COVERAGE))
        return out

    def _words(self, k: int, usual_k: int, usual: str = "") -> dict[str, str]:
        """Returns extractor and k for a name and for people, where they are not the usual ones."""
        name, label = self.extractor.name, type(self.extractor).__name__
        words = {} if name == usual else {name: label}
        return words if k == usual_k else {**words, f"k{k}": f"k = {k}"}

    def _figure(
        self, kind: str, value: float, n: int, which: dict[str, str], convention: str = ""
    ) -> dict[str, Figure]:
        title, phrase = f"{kind.title()} ({', '.join(which.values())})", PHRASES[kind]
        figure = Figure(
            value, n, title, f"{phrase} {convention}".strip(), "high", kind != "density",
            (self.entry, "reference", "labels"), leading=kind in LEADING,
        )  # fmt: skip
        return {f"{'_'.join([kind, *which])}@{n}": figure}


def sets(n: int, reference: int) -> dict[str, dict[str, int]]:
    """Returns how many generated and real images the conventions compare."""
    equal = min(n, reference)
    return {
        "adm": {"generated": n, "real": min(ADM_REFERENCES, reference)},
        "k19": {"generated": equal, "real": equal},
    }
