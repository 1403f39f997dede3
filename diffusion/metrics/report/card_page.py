"""The evaluation card as a page: what was measured, what it means, and pictures."""

from collections.abc import Mapping
from html import escape

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from diffusion.metrics.base import Figure, SampleBatch
from diffusion.metrics.features.base import Record
from diffusion.metrics.report.card import Nearest
from diffusion.metrics.report.html import ARROWS, bars, html_table, page, picture, settings_table
from diffusion.metrics.report.record import notes, recorded_figures

CAPTIONED = 24  # samples that are shown with their captions
SIDE = 56  # images are shown at least this wide


def render_card(name: str, record: Record, made: SampleBatch, nearest: Nearest) -> str:
    """Returns the card as one HTML page that needs no network."""
    figures = recorded_figures(record)
    largest = {x.title: x.n for x in sorted(figures.values(), key=lambda x: x.n or 0)}
    shares = [
        (name, figure.value, figure.baseline)
        for name, figure in figures.items()
        if figure.share and figure.better and figure.n == largest[figure.title]
        if not figure.invalid
    ]
    by_label = enumerate(record.get("accuracy_by_label", ()))
    labels = [(str(label), share, None) for label, share in by_label if share is not None]
    parts = [
        f"<h1>{escape(name)}</h1>{_subtitle(record)}",
        _tiles(figures),
        *(f"<p class=soft>{escape(line)}.</p>" for line in notes(record)),
        f"<h2>Samples</h2>{_samples(made)}",
        "<h2>Figures</h2><p class=soft>The number behind the @ is that of the images: figures "
        "compare only at the same n, with the same features and reference. “Held-out” is what "
        "real images that the reference does not have get in place of the samples.</p>",
        _figures(figures),
    ]
    mark = "<p class=soft>The mark is held-out real images.</p>"
    if shares:
        parts += ["<h2>Shares</h2>", mark, bars(shares)]
    if 1 < len(labels) <= 50:
        parts += ["<h2>Label accuracy by label asked for</h2>", bars(labels)]
    return page(f"Card: {name}", [*parts, _nearest(nearest), settings_table([], record)])


def _subtitle(record: Record) -> str:
    """Returns how many images were drawn how, of which checkpoint, and when."""
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


def _tiles(figures: Mapping[str, Figure]) -> str:
    """Returns the few figures that a card begins with, one of each kind."""
    first: dict[str, tuple[str, Figure]] = {}
    for name, figure in figures.items():
        if figure.leading and not figure.invalid:
            first.setdefault(figure.phrase, (name, figure))
    found = (
        f"<div class=tile>{escape(figure.title)}<b>{figure.value:.4g}</b>"
        f"<small>{escape(name)}</small></div>"
        for name, figure in first.values()
    )
    return f"<div class=tiles>{''.join(found)}</div>"


def _figures(figures: Mapping[str, Figure]) -> str:
    """Returns the table of all figures of samples."""
    rows = [
        [
            f"{escape(figure.title)}{ARROWS[figure.better]}<br><code>{escape(name)}</code>",
            f"{figure.value:.4g}",
            "" if figure.baseline is None else f"{figure.baseline:.4g}",
            f"<span class=soft>{escape(_meaning(figure))}</span>",
        ]
        for name, figure in figures.items()
        if not figure.real
    ]
    return html_table(["figure", "value", "held-out", "what it means"], rows, numbers=(1, 2))


def _meaning(figure: Figure) -> str:
    """Returns what a figure says, or why it says nothing."""
    return f"Invalid: {figure.invalid}." if figure.invalid else figure.phrase


def _samples(made: SampleBatch) -> str:
    """Returns samples with their captions; or ten of each label, a row a label; or a hundred."""
    from torchvision.utils import make_grid

    if (channels := made.images.shape[1]) not in (1, 3):
        return f"<p class=soft>Images of {channels} channels are not shown.</p>"
    if made.texts is not None:
        zoom = _zoom(made.images, 2 * SIDE)
        style = f' style="width:{made.images.shape[-1] * zoom}px"'
        pairs = zip(made.images[:CAPTIONED], made.texts)
        shown = (_under(image, text, zoom, style) for image, text in pairs)
        return f'<div class="box gallery">{"".join(shown)}</div>'
    images, columns = made.images[:100], 10
    if made.labels is not None:
        of_label = [made.images[made.labels == y][:10] for y in made.labels.unique()]
        if 1 < len(of_label) <= 20:
            rows = pad_sequence(of_label, batch_first=True, padding_value=255)
            images, columns = rows.flatten(0, 1), rows.shape[1]
    grid = make_grid(images, nrow=columns, padding=1, pad_value=255)
    shown = picture(grid, "samples, a row a label", _zoom(images, SIDE))
    return f'<div class="box wide">{shown}</div>'


def _zoom(images: Tensor, side: int) -> int:
    """Returns how often a pixel is repeated so that an image is at least this wide."""
    return max(1, -(-side // images.shape[-1]))


def _under(image: Tensor, text: str, zoom: int, style: str = "") -> str:
    """Returns an image with a text under it."""
    caption = f"<figcaption>{escape(text)}</figcaption>"
    return f"<figure{style}>{picture(image, text, zoom)}{caption}</figure>"


def _nearest(nearest: Nearest) -> str:
    """Returns samples, a row each, with the training images nearest to them."""
    head = (
        "<h2>Nearest training images</h2><p class=soft>The first samples, left of the line, and "
        "the training images nearest to them, all versions and mirror images that training shows, "
        "by root mean square of the pixels’ difference (0 is a copy, 2 white against black). Of "
        f"held-out real images it is {nearest.usual:.3f} in the median; much less is a copy.</p>"
    )
    if nearest.samples.shape[1] not in (1, 3):
        return head
    zoom, rows = _zoom(nearest.samples, SIDE), []
    for i, sample in enumerate(nearest.samples):
        near = zip(nearest.images[i], nearest.distances[i].tolist())
        shown = (_under(image, f"{distance:.3f}", zoom) for image, distance in near)
        rows.append(f"<div class=row>{_under(sample, f'sample {i}', zoom)}{''.join(shown)}</div>")
    return f'{head}<div class="box">{"".join(rows)}</div>'
