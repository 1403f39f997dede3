"""Distances between the features of generated and of real images.

The formulas are torch-fidelity's, without its input pipeline. Figures have the number of images
behind the @, and only those with the same one may be compared: where there are fewer held-out
images than samples, a distance is given at their number m too, of the first m samples.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffusion.metrics.base import FeatureMeasure, Figure, SampleBatch, in_sample_order, with_real
from diffusion.metrics.features.base import Extractor, real_features
from diffusion.metrics.manifold import check_features
from diffusion.metrics.real_images import Data, random_rows
from diffusion.metrics.reliability import too_few

DEPENDS = ("extractor", "reference", "labels")


def frechet(f: Tensor, g: Tensor) -> float:
    """Returns ‖μ_f − μ_g‖² + tr(Σ_f + Σ_g − 2(Σ_f Σ_g)^½).

    The Fréchet distance of two Gaussians; with Inception's features it is FID (Heusel et al. 2017,
    arXiv:1706.08500). Its bias falls as 1/n: compare only at the same number of images. Computed
    in float64 from the eigenvalues of Σ_f Σ_g, so that Σ may be singular.

    Args:
        f: Features (N, D), N ≥ 2.
        g: Features (M, D), M ≥ 2.

    Raises:
        ValueError: If there are fewer than two rows or D differs.
    """
    check_features("frechet", f, g)
    return frechet_of_moments(*moments(f), *moments(g))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean (D,) and covariance (D, D) of rows (N, D), float64 on the CPU."""
    x = x.cpu().double()
    return x.mean(0), x.T.cov().reshape(x.shape[1], x.shape[1])


def frechet_of_moments(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
    """Returns the Fréchet distance of Gaussians with these means (D,) and covariances (D, D)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    first, second = (
        {"mu": mu.cpu().numpy(), "sigma": sigma.cpu().numpy()}
        for mu, sigma in ((mean, cov), (other_mean, other_cov))
    )
    return fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]


def kernel(f: Tensor, g: Tensor, subsets: int = 100, seed: int = 0) -> float:
    """Returns the mean over subsets of the unbiased MMD² with k(a, b) = (a·b/D + 1)³.

    With Inception's features it is KID (Bińkowski et al. 2018, arXiv:1801.01401). It may be
    slightly negative, and its mean does not depend on the number of images.

    Args:
        f: Features (N, D), N ≥ 2.
        g: Features (M, D), M ≥ 2.
        subsets: How many random subsets of min(1000, N, M) rows; one if they are all rows.
        seed: Seed of the choice.

    Raises:
        ValueError: If there are fewer than two rows or D differs.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    check_features("kernel", f, g)
    size = min(1000, len(f), len(g))
    settings = {
        "kid_subsets": 1 if size == len(f) == len(g) else subsets,
        "kid_subset_size": size,
        "rng_seed": seed,
        "verbose": False,
    }
    return kid_features_to_metric(f.double(), g.double(), **settings)[KEY_METRIC_KID_MEAN]


class Distance(FeatureMeasure):
    """A distance of the samples' features from those of real images.

    The floor is the distance of held-out real images from the same reference: what a perfect model
    would get.

    Attributes:
        reference: Features of the real images that are compared with, (M, D); after `prepare`.
        held_out: Features of real images that are not among them, (N, D); after `prepare`.
    """

    higher_is_better = False
    reference: Tensor
    held_out: Tensor

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Takes the features of the real images, or reads those taken before."""
        super().prepare(data, cache, progress)
        where = (self.extractor, cache, self.device)
        self.reference = real_features(data, "train", self.extractor.reference, *where)
        self.held_out = real_features(data, "test", "all", *where)
        rule, train = f"{self.extractor.reference} train images", data.fingerprint("train")
        about = {"rule": rule, "size": len(self.reference), "fingerprint": train}
        self.entries["reference"] = about

    def by_number(self, name: str, values: dict[int, float], floor: Figure) -> dict[str, Figure]:
        """Returns figures at each number of images, and the floor."""
        found = {f"{name}@{n}": replace(floor, value=x, n=n) for n, x in values.items()}
        return with_real(found, {f"{name}@{floor.n}": floor}, "floor")


class GatheredDistance(Distance):
    """A distance that needs the features of all samples."""

    index: list[Tensor]
    features: list[Tensor]

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)
        self.add_state("index", [], "cat")
        self.add_state("features", [], "cat")

    def update(self, samples: SampleBatch) -> None:
        """Adds the features."""
        self.index.append(self.count(samples))
        self.features.append(samples.features(self.extractor)[0].to(self.device))


class FrechetDistance(Distance):
    """The Fréchet distance, see `frechet`, from sums: no features are gathered.

    torchmetrics' own FID takes no stored reference, and computes every image's features anew for
    each number of images. The sums are of x − μ, where μ is the mean of the reference, so that they
    do not lose digits to the squares of means.
    """

    counts: Tensor
    sums: Tensor
    products: Tensor

    def prepare(self, data: Data, cache: Path, progress: bool = True) -> None:
        """Computes the moments of the real images."""
        super().prepare(data, cache, progress)
        self.mean, self.cov = moments(self.reference)
        size, exact = len(self.mean), {"dtype": torch.float64, "device": self.device}
        # Of the first samples, as many as there are held-out images, and of all that follow.
        self.add_state("counts", torch.zeros(2, **exact), "sum")
        self.add_state("sums", torch.zeros(2, size, **exact), "sum")
        self.add_state("products", torch.zeros(2, size, size, **exact), "sum")

    def update(self, samples: SampleBatch) -> None:
        """Adds features and their outer products."""
        first = self.count(samples) < len(self.held_out)
        x = samples.features(self.extractor)[0].to(self.sums) - self.mean.to(self.sums)
        parts = (x[first], x[~first])
        self.counts = self.counts + self.counts.new_tensor([len(part) for part in parts])
        self.sums = self.sums + torch.stack([part.sum(0) for part in parts])
        self.products = self.products + torch.stack([part.T @ part for part in parts])

    def evaluate(self) -> dict[str, Figure]:
        """Returns distances at n and m, and the floor at m."""
        n, m, values = int(self.counts.sum()), int(self.counts[0]), {}
        for size, parts in {n: 2, m: 1}.items():
            total, mean = self.counts[:parts].sum(), self.sums[:parts].sum(0)
            mean = mean / total
            cov = (self.products[:parts].sum(0) - total * mean.outer(mean)) / (total - 1)
            values[size] = frechet_of_moments(mean.cpu() + self.mean, cov, self.mean, self.cov)
        floor = frechet_of_moments(*moments(random_rows(self.held_out, m)), self.mean, self.cov)
        name = self.extractor.distance or f"fd_{self.extractor.name}"
        title = f"Fréchet distance ({type(self.extractor).__name__})"
        figure = Figure(
            floor, m, "FID" if name == "fid" else title,
            "Distance of mean and covariance to the reference.", "low", depends=DEPENDS,
            leading=True,
        )  # fmt: skip
        numbers = {"metrics.n": n, "reference": len(self.reference), "floor": len(self.held_out)}
        few = (too_few(what, number, len(self.mean)) for what, number in numbers.items())
        self.warn(self.about.get("warning"), *few)
        return self.by_number(name, values, figure)


class KernelDistance(GatheredDistance):
    """The kernel distance, see `kernel`, whose random subsets are of all samples."""

    def evaluate(self) -> dict[str, Figure]:
        """Returns distances at n and m, and the floor at m."""
        (features,) = in_sample_order(self.index, self.features)
        real = random_rows(self.held_out, n := len(features))
        sets = {size: features[:size].cpu() for size in (n, len(real))}
        values = {size: kernel(x, self.reference) for size, x in sets.items()}
        floor = kernel(real, self.reference)
        title = f"Kernel distance ({type(self.extractor).__name__})"
        phrase = "Squared MMD to the reference; unbiased in n."
        figure = Figure(floor, len(real), title, phrase, "low", depends=DEPENDS)
        name = self.extractor.kernel or f"kid_{self.extractor.name}"
        return self.by_number(name, values, figure)
