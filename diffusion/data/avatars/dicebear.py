"""DiceBear's styles of drawing: parts in variants, put together as SVG.

A style is a JSON file of the pinned package; what it holds is read and nothing of it is run.
"""

import html
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.common.packages import Package
from diffusion.data.reading.svg import SIDE, drawn

STYLES = Package(
    "dicebear-styles",
    "10.6.0",
    "5a5b0b9c534d133fa06f1dd29f280139995965b32b08c5635a69cc6afc30930d",
    "pip",
)
Parts = Mapping[str, str]  # the variant of each part; a part that is not named is not drawn


@dataclass(frozen=True)
class PartsStyle:
    """A style's parts on a square canvas.

    Args:
        content: The JSON file.
    """

    content: Mapping[str, Any]

    @classmethod
    def read(cls, archive: Path, name: str) -> "PartsStyle":
        """Returns a style of the package."""
        with zipfile.ZipFile(archive) as wheel:
            return cls(json.loads(wheel.read(f"dicebear_styles/{name}.json")))

    @property
    def side(self) -> float:
        """Width and height of the canvas in its own units."""
        return self.content["canvas"]["width"]

    def svg(
        self,
        parts: Parts,
        colours: Mapping[str, str],
        matrices: Mapping[str, np.ndarray] | None = None,
        ground: str | None = None,
    ) -> str:
        """Returns the SVG of some parts.

        Args:
            parts: Which.
            colours: Of each name that they use, as #rrggbb.
            matrices: Of parts that are moved, (x, y, 1) ↦ (x', y') as (2, 3), in the canvas' units.
            ground: The background's colour; None for none.
        """
        side, matrices = f"{self.side:g}", matrices or {}
        found = [f'<rect width="{side}" height="{side}" fill="{ground}"/>'] if ground else []
        for node in self.content["canvas"]["elements"]:
            body = self._node(node, parts, colours)
            if (moved := matrices.get(node["name"])) is not None:
                numbers = " ".join(f"{x:.5f}" for x in moved.T.ravel())
                body = f'<g transform="matrix({numbers})">{body}</g>'
            found.append(body)
        root = "".join(f' {k}="{v}"' for k, v in self.content.get("attributes", {}).items())
        space = 'xmlns="http://www.w3.org/2000/svg"'
        return f'<svg {space} viewBox="0 0 {side} {side}"{root}>{"".join(found)}</svg>'

    def _node(self, node: Mapping[str, Any], parts: Parts, colours: Mapping[str, str]) -> str:
        name, children = node["name"], node.get("children", [])
        if node["type"] == "component":
            if name not in parts:
                return ""
            children = self.content["components"][name]["variants"][parts[name]]["elements"]
            name = "g"
        body = "".join(self._node(child, parts, colours) for child in children)
        if children and not body:  # a mask around a part that is not drawn
            return ""
        about = {
            key: value if isinstance(value, str) else colours[value["name"]]
            for key, value in node.get("attributes", {}).items()
        }
        written = "".join(f' {key}="{html.escape(value)}"' for key, value in about.items())
        return f"<{name}{written}>{body}</{name}>"

    def ink(self, part: str, variant: str, colours: Sequence[str]) -> np.ndarray:
        """Returns where a variant alone is drawn: the middles of its pixels, float64 (N, 2).

        They are x and y in the canvas' units; a pixel is a `SIDE`-th of the canvas.
        """
        svg = self.svg({part: variant}, dict.fromkeys(colours, "#000000"))
        y, x = np.nonzero(drawn(svg)[..., 3] > 127)
        return (np.stack([x, y], 1) + 0.5) * self.side / SIDE
