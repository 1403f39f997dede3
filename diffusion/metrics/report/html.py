"""Web pages that are one file: no scripts, nothing from a network, light and dark."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from torch import Tensor

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
svg{display:block;max-width:100%}svg text{fill:var(--ink);font-size:12px}
.best{color:var(--accent)}
"""


def page(title: str, body: str) -> str:
    """Returns the whole page.

    Args:
        title: Plain text.
        body: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Returns a table that scrolls where it is too wide.

    Args:
        header: The columns' names, HTML; empty for none.
        rows: The cells, HTML.
        numbers: Which columns are flush right.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        kind = [' class="n"' if i in numbers else "" for i in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{k}>{c}</{tag}>' for k, c in zip(kind, cells))}</tr>"

    lines = [row(header, "th")] if header else []
    return (
        f'<div class="box"><table>{"".join([*lines, *(row(r, "td") for r in rows)])}</table></div>'
    )


def settings(record: Any) -> str:
    """Returns nested settings as HTML: dictionaries as "key value" and lists, in one cell."""
    if isinstance(record, dict):
        known = {k: v for k, v in record.items() if v is not None}
        return "<br>".join(f"{escape(str(k))}: {settings(v)}" for k, v in known.items()) or "–"
    if isinstance(record, list | tuple):
        return ", ".join(map(settings, record)) or "none"
    text = f"{record:.4g}" if isinstance(record, float) else str(record)
    return "–" if record is None else f"<code>{escape(text)}</code>"


def picture(image: Tensor, description: str, zoom: int = 1) -> str:
    """Returns a uint8 picture (C, H, W), C = 1 or 3, inside the page.

    Args:
        image: The picture.
        description: What it shows, plain text.
        zoom: Width and height of a pixel on the screen.
    """
    from torchvision.io import encode_png

    return inline(encode_png(image.cpu().contiguous()).numpy().tobytes(), description) % (
        f'width="{image.shape[2] * zoom}" height="{image.shape[1] * zoom}"'
    )


def inline(png: bytes, description: str) -> str:
    """Returns a PNG file inside the page; "%s" stands where its size may be.

    Args:
        png: The file.
        description: What it shows, plain text.
    """
    data = base64.b64encode(png).decode()
    text = escape(description).replace("%", "%%")
    return f'<img %s alt="{text}" src="data:image/png;base64,{data}">'


def bars(shares: Sequence[tuple[str, float, float | None]]) -> str:
    """Returns bars from 0 to 1, each with a mark of its own.

    Args:
        shares: Label, plain text; length; and where the mark is, or None.
    """
    out = [f'<svg viewBox="0 0 640 {24 * len(shares)}" width="640" role="img">']
    for i, (label, share, mark) in enumerate(shares):
        y, width = 24 * i, 360 * min(max(share, 0.0), 1.0)
        out.append(
            f'<text x="0" y="{y + 16}">{escape(label)}</text>'
            f'<rect x="210" y="{y + 4}" width="360" height="16" rx="3" fill="var(--bar)"/>'
            f'<rect x="210" y="{y + 4}" width="{width:.1f}" height="16" rx="3" '
            'fill="var(--accent)"/>'
            f'<text x="580" y="{y + 16}">{share:.3f}</text>'
        )
        if mark is not None:
            x = 210 + 360 * min(max(mark, 0.0), 1.0)
            out.append(
                f'<path d="M{x:.1f} {y + 1}v22" stroke="var(--ink)" stroke-width="2">'
                f"<title>{mark:.3f}</title></path>"
            )
    return f'<div class="box">{"".join(out)}</svg></div>'
