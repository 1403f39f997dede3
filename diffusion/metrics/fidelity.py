"""Precision, recall, density and coverage by name: how many of which images, in whose features."""

from torch import Tensor

from diffusion.metrics.features.base import Extractor
from diffusion.metrics.generated import some
from diffusion.metrics.manifold import density_coverage, f1, precision_recall

ADM_REFERENCES = 10_000
K, K_COVERAGE = 3, 5  # the papers'
OWN = {"adm": "inception", "k19": "vgg16"}  # the features that a convention's name implies


def fidelity(
    extractor: Extractor,
    features: Tensor,
    reference: Tensor,
    held_out: Tensor,
    k: int = K,
    k_coverage: int = K_COVERAGE,
) -> dict[str, float]:
    """Returns the figures at n, and with their ceiling at n' = min(n, number of held-out images).

    "adm" is the evaluator of Dhariwal & Nichol 2021 (arXiv:2105.05233): 10,000 reference images,
    or all if there are fewer, against all n samples, in Inception's features. "k19" is
    Kynkäänniemi et al. 2019: as many reference images as samples, m of each, in VGG16's. The two
    are not comparable. A name has the extractor too where it is not the convention's own, and k
    where it is not 3 (5 for density and coverage, Naeem et al. 2020, which take k19's sets):
    precision_adm@n and precision_k19@m, but precision_adm_lenet@n, precision_k19_lenet_k5@m,
    density_lenet@m. The choice of reference images is random, with a fixed seed.

    The ceiling is what held-out real images get in place of the samples, "_ceiling@n'". It is no
    bound: a model can buy precision with variety.

    Args:
        extractor: Which names them.
        features: Features of generated images (n, D).
        reference: Features of real images (M, D).
        held_out: Features of real images that are not among them (N, D).
        k: Which neighbour the balls of precision and recall reach to.
        k_coverage: Which neighbour those of density and coverage reach to.

    Raises:
        ValueError: If there are not more than k images.
    """
    real = some(held_out, len(features))
    out = _at(extractor, features, reference, "", k, k_coverage)
    if min(len(real), len(reference)) > max(k, k_coverage):
        out |= _at(extractor, features[: len(real)], reference, "", k, k_coverage)
        out |= _at(extractor, real, reference, "_ceiling", k, k_coverage)
    return out


def sets(n: int, reference: int) -> dict[str, dict[str, int]]:
    """Returns how many generated and real images the conventions compare.

    Args:
        n: Number of generated images.
        reference: Number of reference images there are.
    """
    equal = min(n, reference)
    return {
        "adm": {"generated": n, "real": min(ADM_REFERENCES, reference)},
        "k19": {"generated": equal, "real": equal},
    }


def _at(
    extractor: Extractor, features: Tensor, reference: Tensor, end: str, k: int, k_coverage: int
) -> dict[str, float]:
    out, sizes = {}, sets(len(features), len(reference))
    name = f"_{extractor.name}"
    found: dict[tuple[int, int], tuple[float, float]] = {}  # the conventions may have the same sets
    for convention, own in OWN.items():
        n, m = sizes[convention]["generated"], sizes[convention]["real"]
        if (n, m) not in found:
            found[n, m] = precision_recall(features[:n], some(reference, m), k)
        p, r = found[n, m]
        which = f"{convention}{'' if extractor.name == own else name}{'' if k == K else f'_k{k}'}"
        for kind, value in {"precision": p, "recall": r, "f1": f1(p, r)}.items():
            out[f"{kind}_{which}{end}@{n}"] = value
    m = sizes["k19"]["real"]
    d, c = density_coverage(features[:m], some(reference, m), k_coverage)
    which = f"{extractor.name}{'' if k_coverage == K_COVERAGE else f'_k{k_coverage}'}{end}@{m}"
    return out | {f"density_{which}": d, f"coverage_{which}": c}
