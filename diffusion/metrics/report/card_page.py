"""The evaluation card as a page: what was measured, what it means, and pictures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from torch import Tensor

from diffusion.metrics.base import Figure, Samples
from diffusion.metrics.card import Nearest
from diffusion.metrics.report.html import bars, page, picture, settings, table
from diffusion.metrics.report.record import notes, restored

CAPTIONED = 24  # samples that are shown with their captions
SIDE = 56  # images are shown at least this wide


def render(name: str, record: Mapping[str, Any], made: Samples, nearest: Nearest) -> str:
    """Returns the card as one HTML page that needs no network.

    Args:
        name: What was measured.
        record: What metrics.json holds.
        made: The first samples.
        nearest: Samples and training images.
    """
    figures = restored(record)
    body = [
        f"<h1>{escape(name)}</h1>{_subtitle(record)}",
        _tiles(figures),
        "".join(f"<p class=soft>{escape(line)}.</p>" for line in notes(record)),
        "<h2>Samples</h2>",
        _samples(made),
        "<h2>Figures</h2><p class=soft>The number behind the @ is that of the images: figures "
        "compare only at the same n, with the same features and reference. “Held-out” is what "
        "real images that the reference does not have get in place of the samples.</p>",
        _figures(figures),
    ]
    shares = [
        (name, figure.value, figure.baseline)
        for name, figure in figures.items()
        if figure.share and figure.better and figure.n == _largest(figures, figure)
    ]
    if shares:
        body += ["<h2>Shares</h2><p class=soft>The mark is held-out real images.</p>", bars(shares)]
    by_label = [
        (str(y), v, None)
        for y, v in enumerate(record.get("accuracy_by_label", ()))
        if v is not None
    ]
    if 1 < len(by_label) <= 50:
        body += ["<h2>Label accuracy by label asked for</h2>", bars(by_label)]
    body += [_nearest(nearest), "<h2>What the figures depend on</h2>", _settings(record)]
    return page(f"Card: {name}", "\n".join(body))


def _subtitle(record: Mapping[str, Any]) -> str:
    sampler, checkpoint = record.get("sampler") or {}, record.get("checkpoint") or {}
    drawn = ", then ".join(
        "by {step} in {steps} steps, guidance ".format(**stage)
        + (", ".join(stage["guidance"]) or "none")
        for stage in sampler.get("stages", [sampler] if sampler else [])
    )
    parts = [
        f"{record['n']} images {drawn}",
        f"compared with {record['data']['name']}",
        f"checkpoint {checkpoint.get('fingerprint', 'none')}",
        record["hardware"]["device"],
        record["date"],
    ]
    return f"<p class=soft>{escape('; '.join(parts))}</p>"


def _largest(figures: Mapping[str, Figure], of: Figure) -> int:
    """Returns the largest number of images of the figures of one title."""
    return max(figure.n or 0 for figure in figures.values() if figure.title == of.title)


def _tiles(figures: Mapping[str, Figure]) -> str:
    first: dict[str, tuple[str, Figure]] = {}
    for name, figure in figures.items():
        if figure.leading:
            first.setdefault(figure.phrase, (name, figure))
    found = (
        f"<div class=tile>{escape(figure.title)}<b>{figure.value:.4g}</b>"
        f"<small>{escape(name)}</small></div>"
        for name, figure in first.values()
    )
    return f"<div class=tiles>{''.join(found)}</div>"


def _figures(figures: Mapping[str, Figure]) -> str:
    arrows = {"low": " ↓", "high": " ↑", None: ""}
    rows = [
        [
            f"{escape(figure.title)}{arrows[figure.better]}<br><code>{escape(name)}</code>",
            f"{figure.value:.4g}",
            "" if figure.baseline is None else f"{figure.baseline:.4g}",
            f"<span class=soft>{escape(figure.phrase)}</span>",
        ]
        for name, figure in figures.items()
        if not figure.real
    ]
    return table(["figure", "value", "held-out", "what it means"], rows, numbers=(1, 2))


def _samples(made: Samples) -> str:
    """Returns samples with their captions; or ten of each label, a row a label; or a hundred."""
    from torchvision.utils import make_grid

    if made.texts is not None and made.images.shape[1] in (1, 3):
        return _captioned(made.images[:CAPTIONED], made.texts)
    images, columns = made.images[:100], 10
    if made.labels is not None:
        of_label = [made.images[made.labels == y][:10] for y in made.labels.unique()]
        if 1 < len(of_label) <= 20:
            columns = max(map(len, of_label))
            rows = made.images.new_full((len(of_label), columns, *made.images.shape[1:]), 255)
            for row, found in zip(rows, of_label):
                row[: len(found)] = found
            images = rows.flatten(0, 1)
    if images.shape[1] not in (1, 3):
        return f"<p class=soft>Images of {images.shape[1]} channels are not shown.</p>"
    zoom = max(1, -(-SIDE // images.shape[-1]))
    grid = make_grid(images, nrow=columns, padding=1, pad_value=255)
    return f'<div class="box wide">{picture(grid, "samples, a row a label", zoom)}</div>'


def _captioned(images: Tensor, texts: Sequence[str]) -> str:
    """Returns images with their captions under them."""
    zoom = max(1, -(-2 * SIDE // images.shape[-1]))
    shown = (
        f'<figure style="width:{images.shape[-1] * zoom}px">{picture(image, text, zoom)}'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for image, text in zip(images, texts)
    )
    return f'<div class="box gallery">{"".join(shown)}</div>'


def _nearest(nearest: Nearest) -> str:
    head = (
        "<h2>Nearest training images</h2><p class=soft>The first samples, left of the line, and "
        "the training images nearest to them, all versions and mirror images that training shows, "
        "by root mean square of the pixels’ difference (0 is a copy, 2 white against black). Of "
        f"held-out real images it is {nearest.usual:.3f} in the median; much less is a copy.</p>"
    )
    if nearest.samples.shape[1] not in (1, 3):
        return head
    zoom = max(1, -(-SIDE // nearest.samples.shape[-1]))
    rows = []
    for i, sample in enumerate(nearest.samples):
        cells = [(sample, f"sample {i}")]
        cells += [(x, f"{d:.3f}") for x, d in zip(nearest.images[i], nearest.distances[i].tolist())]
        shown = (
            f"<figure>{picture(x, text, zoom)}<figcaption>{text}</figcaption></figure>"
            for x, text in cells
        )
        rows.append(f"<div class=row>{''.join(shown)}</div>")
    return f'{head}<div class="box">{"".join(rows)}</div>'


def _settings(record: Mapping[str, Any]) -> str:
    left = ("figures", "meanings", "accuracy_by_label", "warnings")
    rows = [[escape(k.replace("_", " ")), settings(v)] for k, v in record.items() if k not in left]
    return table([], rows)
