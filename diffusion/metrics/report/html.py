"""Web pages that are one file: no scripts, nothing from a network, light and dark."""

import base64
from collections.abc import Collection, Iterable, Sequence
from html import escape

from torch import Tensor

from diffusion.metrics.features.base import Record

ARROWS = {"low": " ↓", "high": " ↑", None: ""}  # towards what is better
APART = {"figures", "meanings", "accuracy_by_label", "warnings"}  # what figures do not depend on
STYLE = """
:root{color-scheme:light dark;--ink:#1d2530;--soft:#5f6b7a;--line:#dfe4ea;--page:#f6f7f9;
--card:#fff;--accent:#3563c9;--bar:#dbe4f8}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa7b6;--line:#323a46;
--page:#14181e;--card:#1c222b;--accent:#86a8f7;--bar:#2b3850}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.7rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .7rem}
p{margin:.3rem 0;max-width:46rem}.soft,small{color:var(--soft)}small{overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.7rem;
margin-top:1.4rem}
.tile,.box{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.8rem 1rem}
.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
.box{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{padding:.4rem .8rem .4rem 0;text-align:left;vertical-align:top;
border-top:1px solid var(--line)}
tr:first-child>*{border-top:0}th{font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:.86em ui-monospace,monospace;overflow-wrap:anywhere}
img{image-rendering:pixelated;display:block;border-radius:.2rem}
.wide img{max-width:100%;height:auto}
.row{display:flex;gap:.5rem;padding:.3rem 0}.row figure{margin:0;text-align:center}
.row figure:first-child{padding-right:.6rem;border-right:2px solid var(--accent)}
.gallery{display:flex;flex-wrap:wrap;gap:.8rem}.gallery figure{margin:0}
figcaption{font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.bar{display:block;width:22rem;height:1rem;border-radius:.2rem;background-color:var(--bar);
background-image:linear-gradient(var(--ink) 0 0),linear-gradient(var(--accent) 0 0);
background-size:2px 100%,var(--share) 100%;background-position:var(--mark) 0,0 0;
background-repeat:no-repeat}
.best{color:var(--accent)}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Returns the whole page."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def html_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()
) -> str:
    """Returns a table that scrolls where it is too wide.

    Args:
        header: The columns' names, HTML; empty for none.
        rows: The cells, HTML.
        numbers: Which columns are flush right.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="n"' if i in numbers else "" for i in range(len(cells)))
        return f"<tr>{''.join(f'<{tag}{k}>{c}</{tag}>' for k, c in zip(kinds, cells))}</tr>"

    lines = [row(header, "th")] if header else []
    lines += [row(cells, "td") for cells in rows]
    return f'<div class="box"><table>{"".join(lines)}</table></div>'


def settings_table(header: Sequence[str], *records: Record) -> str:
    """Returns the section that says what figures depend on.

    Args:
        header: The columns' names, HTML; empty for none.
        *records: What metrics.json holds, a column each.
    """
    rows = []
    for key in dict.fromkeys(key for record in records for key in record if key not in APART):
        rows.append([escape(key.replace("_", " ")), *(_cell(x.get(key)) for x in records)])
    return "<h2>What the figures depend on</h2>" + html_table(header, rows)


def _cell(entry: object) -> str:
    """Returns nested settings as HTML: dictionaries as "key value" and lists, in one cell."""
    if isinstance(entry, dict):
        known = {k: v for k, v in entry.items() if v is not None}
        return "<br>".join(f"{escape(str(k))}: {_cell(v)}" for k, v in known.items()) or "–"
    if isinstance(entry, list | tuple):
        return ", ".join(map(_cell, entry)) or "none"
    text = f"{entry:.4g}" if isinstance(entry, float) else str(entry)
    return "–" if entry is None else f"<code>{escape(text)}</code>"


def picture(image: Tensor, description: str, zoom: int = 1) -> str:
    """Returns a uint8 picture (C, H, W), C = 1 or 3, inside the page."""
    from torchvision.io import encode_png

    size = f'width="{image.shape[2] * zoom}" height="{image.shape[1] * zoom}"'
    return inline(encode_png(image.cpu().contiguous()).numpy().tobytes(), description, size)


def inline(png: bytes, description: str, size: str = "") -> str:
    """Returns a PNG file inside the page.

    Args:
        png: The file.
        description: What it shows, plain text.
        size: Its attributes, if not the file's.
    """
    data = base64.b64encode(png).decode()
    return f'<img {size} alt="{escape(description)}" src="data:image/png;base64,{data}">'


def bars(shares: Sequence[tuple[str, float, float | None]]) -> str:
    """Returns bars from 0 to 1, each with a mark of its own.

    Args:
        shares: Label, plain text; length; and where the mark is, or None.
    """
    rows = []
    for label, share, mark in shares:
        style = f"--share:{share:.1%};--mark:{-1 if mark is None else mark:.1%}"
        rows.append([escape(label), f'<i class="bar" style="{style}"></i>', f"{share:.3f}"])
    return html_table([], rows, numbers=[2])
