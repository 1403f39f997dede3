"""`diffusion compare`: evaluation cards side by side, and which figures may be compared at all."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from rich import get_console

from diffusion.common.files import json_object, kept
from diffusion.metrics.base import Figure
from diffusion.metrics.features.base import Record
from diffusion.metrics.report.html import ARROWS, html_table, inline, page, settings_table
from diffusion.metrics.report.record import recorded_figures

DEPENDS = {"labels": "which labels were asked for"}
TESTED = ("accuracy", "held_out", "chance", "warning")  # how good an extractor is, not which it is


@dataclass(frozen=True)
class Measured:
    """What one test has left.

    Attributes:
        name: The run's folder, and the file's stem too where that is not "metrics".
        record: What metrics.json holds.
        samples: The picture of its samples, or None.
    """

    name: str
    record: Record
    samples: Path | None

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures by name."""
        return recorded_figures(self.record)


def compare(*runs: str, output: str = "compare") -> None:
    """Puts the figures and samples of several tests side by side, as a page and as CSV.

    The best of a row is bold only where n, features and reference agree; elsewhere the page says
    why the figures may not be compared. Earlier pages are renamed, not overwritten.

    Args:
        runs: Two or more folders of runs, each with a metrics.json, or such files.
        output: Name of what is written: OUTPUT.html and OUTPUT.csv.
    """
    cards = [read_card(Path(run)) for run in runs]
    if len(cards) < 2:
        raise ValueError(f"compare: {len(cards)} card; expected two or more runs or metrics.json")
    named: dict[str, str] = {}
    for run, name in zip(runs, (card.name for card in cards)):
        if name in named:
            raise ValueError(
                f"compare: {named[name]} and {run} are both called {name!r}; expected folders of "
                "different names"
            )
        named[name] = run
    with kept(Path(f"{output}.html")) as part:
        part.write_text(render_comparison(cards), encoding="utf-8")
    with kept(Path(f"{output}.csv")) as part:
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(sheet(cards))
    get_console().print(f"wrote {output}.html and {output}.csv")


def read_card(path: Path) -> Measured:
    """Returns what is in a run's folder, or in a file like metrics.json.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else.
    """
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"compare: {file} does not exist; expected a run that was tested, or its metrics.json"
        )
    record = json_object(file, "compare")
    if not isinstance(record.get("figures"), dict):
        raise ValueError(f'compare: {file}; expected the "figures" of a test, as in metrics.json')
    run = file.absolute().parent.name
    if file.name != "metrics.json":  # the picture beside it is of the last test
        return Measured(f"{run}/{file.stem}", record, None)
    picture = file.with_name("samples.png")
    return Measured(run, record, picture if picture.is_file() else None)


def why_not(cards: Sequence[Measured], name: str) -> str | None:
    """Returns why a figure may not be compared between those that have it, or None if it may."""
    have = [card for card in cards if name in card.figures]
    figure = have[0].figures[name]
    for card in have:
        if invalid := card.figures[name].invalid:
            return f"invalid in {card.name}: {invalid}"
    if len(have) < 2:
        same = [x for x in every(cards).values() if x.title == figure.title]
        others = [str(x.n) for x in same if x.n != figure.n and x.real == figure.real]
        return f"n is {figure.n}, elsewhere {', '.join(others)}" if others else "only one has it"
    doubts = []
    for key in figure.depends:
        found = set()
        for entry in (card.record.get(key) for card in have):
            if isinstance(entry, dict):
                doubts.append(entry.get("warning"))
                entry = {k: v for k, v in entry.items() if k not in TESTED}
            found.add(json.dumps(entry, sort_keys=True))
        if len(found) > 1:
            return f"{DEPENDS.get(key, key.replace('_', ' '))} differs"
    return next(filter(None, doubts), None)


def best(cards: Sequence[Measured], name: str) -> set[str]:
    """Returns the names of the cards with the best of a figure; none where that has no meaning."""
    values = {card.name: card.figures[name] for card in cards if name in card.figures}
    better = next(iter(values.values())).better
    if better is None or why_not(cards, name):
        return set()
    top = (min if better == "low" else max)(figure.value for figure in values.values())
    return {card for card, figure in values.items() if figure.value == top}


def every(cards: Sequence[Measured]) -> dict[str, Figure]:
    """Returns all figures by name, those of one title together, in the order of the cards."""
    found: dict[str, Figure] = {}
    for card in cards:
        found |= {name: x for name, x in card.figures.items() if name not in found}
    titles = list(dict.fromkeys(figure.title for figure in found.values()))

    def place(item: tuple[str, Figure]) -> tuple[int, int, bool]:
        return titles.index(item[1].title), -(item[1].n or 0), item[1].real

    return dict(sorted(found.items(), key=place))


def sheet(cards: Sequence[Measured]) -> list[list[object]]:
    """Returns the rows of the CSV: a header, then a card a row."""
    about = ("n", "data", "extractor", "reference", "sampler", "checkpoint", "date")
    names = list(every(cards))
    rows: list[list[object]] = [["name", *about, *names]]
    for card in cards:
        parts = [card.record.get(key) for key in about]
        cells = [json.dumps(x, sort_keys=True) if isinstance(x, dict) else x for x in parts]
        rows.append([card.name, *cells, *(card.record["figures"].get(name, "") for name in names)])
    return rows


def render_comparison(cards: Sequence[Measured]) -> str:
    """Returns the page."""
    heads = [escape(card.name) for card in cards]
    pictures = [
        inline(c.samples.read_bytes(), f"samples of {c.name}") if c.samples else "–" for c in cards
    ]
    rows = [_row(cards, *x) for x in every(cards).items()]
    parts = [
        f"<h1>Side by side</h1><p class=soft>{', '.join(heads)}</p>",
        f"<h2>Samples</h2><div class=wide>{html_table(heads, [pictures])}</div>",
        "<h2>Figures</h2><p class=soft>The best is bold where the figures may be compared: at the "
        "same n, with the same features and reference. Where they may not, the last column says "
        "why.</p>",
        html_table(["figure", *heads, ""], rows, range(1, len(cards) + 1)),
        settings_table(["", *heads], *(card.record for card in cards)),
    ]
    return page(f"Compare: {', '.join(card.name for card in cards)}", parts)


def _row(cards: Sequence[Measured], name: str, figure: Figure) -> list[str]:
    """Returns the cells of a figure: its name, a value a card, and why they are not compared."""
    cells, winners, reason = [], best(cards, name), why_not(cards, name)
    for card in cards:
        text = f"{card.figures[name].value:.4g}" if name in card.figures else "–"
        cells.append(f"<b class=best>{text}</b>" if card.name in winners else text)
    note = f"not comparable: {reason}" if reason else figure.phrase
    head = f"<code>{escape(name)}</code>{ARROWS[figure.better]}"
    return [head, *cells, f"<span class=soft>{escape(note)}</span>"]
