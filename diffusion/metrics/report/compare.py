"""`diffusion compare`: evaluation cards side by side, and which figures may be compared at all."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich import get_console

from diffusion.common.files import kept
from diffusion.metrics.fidelity import OWN
from diffusion.metrics.report.html import inline, page, settings, table
from diffusion.metrics.report.names import Name, parse

DEPENDS = {
    "extractors": "extractor, or how many of its images,",
    "labels": "which labels were asked for",
}
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
    record: Mapping[str, Any]
    samples: Path | None

    @property
    def figures(self) -> Mapping[str, float]:
        """The figures by name."""
        return self.record["figures"]


def compare(*runs: str, output: str = "compare") -> None:
    """Puts the figures and samples of several tests side by side, as a page and as CSV.

    The best of a row is bold only where n, features and reference agree; elsewhere the page says
    why the figures may not be compared. Earlier pages are renamed, not overwritten.

    Args:
        runs: Two or more folders of runs, each with a metrics.json, or such files.
        output: Name of what is written: OUTPUT.html and OUTPUT.csv.
    """
    cards = [read(Path(run)) for run in runs]
    if len(cards) < 2:
        raise ValueError(f"compare: {len(cards)} card; expected two or more runs or metrics.json")
    for i, card in enumerate(cards):
        first = next(j for j, other in enumerate(cards) if other.name == card.name)
        if first != i:
            raise ValueError(
                f"compare: {runs[first]} and {runs[i]} are both called {card.name!r}; "
                "expected folders of different names"
            )
    with kept(Path(f"{output}.html")) as part:
        part.write_text(render(cards), encoding="utf-8")
    with kept(Path(f"{output}.csv")) as part:
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(sheet(cards))
    get_console().print(f"wrote {output}.html and {output}.csv")


def read(path: Path) -> Measured:
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
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        known = isinstance(record["figures"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f'compare: {file}; expected the "figures" of a test, as in metrics.json')
    run = file.absolute().parent.name
    if file.name != "metrics.json":  # the picture beside it is of the last test
        return Measured(f"{run}/{file.stem}", record, None)
    picture = file.with_name("samples.png")
    return Measured(run, record, picture if picture.is_file() else None)


def why_not(cards: Sequence[Measured], name: Name) -> str | None:
    """Returns why a figure may not be compared between those that have it, or None if it may."""
    have = [card for card in cards if name.text in card.figures]
    if len(have) < 2:
        same = [x for x in every(cards) if x.base == name.base and x.baseline == name.baseline]
        others = [str(x.n) for x in same if x.n != name.n]
        if others:
            return f"n is {name.n}, elsewhere {', '.join(others)}"
        return "only one has it"
    for key in name.meaning.depends:
        found = {json.dumps(_setting(card.record, key, name), sort_keys=True) for card in have}
        if len(found) > 1:
            return f"{DEPENDS.get(key, key.replace('_', ' '))} differs"
    doubts = [about.get("warning") for card in have for about in _judges(card.record, name)]
    return next(filter(None, doubts), None)


def best(cards: Sequence[Measured], name: Name) -> set[str]:
    """Returns the names of the cards with the best of a figure; none where that has no meaning."""
    if why_not(cards, name) or not name.meaning.better or name.baseline:
        return set()
    values = {c.name: c.figures[name.text] for c in cards if name.text in c.figures}
    top = (min if name.meaning.better == "low" else max)(values.values())
    return {card for card, value in values.items() if value == top}


def every(cards: Sequence[Measured]) -> list[Name]:
    """Returns the names of all figures, those of one kind together, in the order of the cards."""
    names = [parse(x) for x in dict.fromkeys(x for card in cards for x in card.figures)]
    bases = list(dict.fromkeys(name.base for name in names))
    return sorted(names, key=lambda x: (bases.index(x.base), -(x.n or 0), x.baseline))


def sheet(cards: Sequence[Measured]) -> list[list[Any]]:
    """Returns the rows of the CSV: a header, then a card a row."""
    about = ("n", "data", "extractor", "reference", "sampler", "checkpoint", "date")
    names = [name.text for name in every(cards)]
    rows: list[list[Any]] = [["name", *about, *names]]
    for card in cards:
        parts = [card.record.get(key) for key in about]
        cells = [json.dumps(x, sort_keys=True) if isinstance(x, dict) else x for x in parts]
        rows.append([card.name, *cells, *(card.figures.get(name, "") for name in names)])
    return rows


def render(cards: Sequence[Measured]) -> str:
    """Returns the page."""
    heads = [escape(card.name) for card in cards]
    title = ", ".join(card.name for card in cards)
    pictures = [
        "–" if c.samples is None else inline(c.samples.read_bytes(), f"samples of {c.name}") % ""
        for c in cards
    ]
    shared = ("n", "data", "reference", "extractor", "card", "sampler", "checkpoint", "hardware")
    about = [[key, *(settings(c.record.get(key)) for c in cards)] for key in (*shared, "date")]
    body = [
        f"<h1>Side by side</h1><p class=soft>{escape(title)}</p>",
        f"<h2>Samples</h2><div class=wide>{table(heads, [pictures])}</div>",
        "<h2>Figures</h2><p class=soft>The best is bold where the figures may be compared: at the "
        "same n, with the same features and reference. Where they may not, the last column says "
        "why.</p>",
        table(["figure", *heads, ""], [_row(cards, x) for x in every(cards)], _numbers(cards)),
        "<h2>What the figures depend on</h2>",
        table(["", *heads], about),
    ]
    return page(f"Compare: {title}", "\n".join(body))


def _numbers(cards: Sequence[Measured]) -> range:
    return range(1, len(cards) + 1)


def _row(cards: Sequence[Measured], name: Name) -> list[str]:
    arrow, winners = {"low": "↓", "high": "↑", None: ""}, best(cards, name)
    cells = []
    for card in cards:
        text = f"{card.figures[name.text]:.4g}" if name.text in card.figures else "–"
        cells.append(f"<b class=best>{text}</b>" if card.name in winners else text)
    reason = why_not(cards, name)
    note = f"not comparable: {escape(reason)}" if reason else escape(name.phrase)
    direction = "" if name.baseline else arrow[name.meaning.better]
    head = f"<code>{escape(name.text)}</code> {direction}"
    return [head, *cells, f"<span class=soft>{note}</span>"]


def _setting(record: Mapping[str, Any], key: str, name: Name) -> Any:
    """Returns what a figure depends on, of one record; of an extractor, its weights and images."""
    if key == "extractor":
        return (record.get("extractor") or {}).get("fingerprint")
    if key == "judge":
        return (record.get("judge") or {}).get("test_accuracy")
    if key != "extractors":
        return record.get(key)
    return [{k: v for k, v in e.items() if k not in TESTED} for e in _named(record, name)]


def _named(record: Mapping[str, Any], name: Name) -> list[dict[str, Any]]:
    """Returns the entries of the extractors of a figure of the card."""
    parts, card = name.base.split("_"), record.get("card") or {}
    own = OWN.get(name.convention)
    known = card.get("extractors", [])
    return [e for e in known if e["name"] in parts] or [e for e in known if e["name"] == own]


def _judges(record: Mapping[str, Any], name: Name) -> list[Mapping[str, Any]]:
    """Returns the entries of all that a figure was measured with."""
    found: list[Mapping[str, Any]] = []
    for key in name.meaning.depends:
        if key in ("extractor", "judge", "text"):
            found.append(record.get(key) or {})
        elif key == "extractors":
            found += _named(record, name)
    return found
