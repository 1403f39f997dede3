"""Makes dicebear.npz: pictures by DiceBear's own renderer, for tests/data/test_avatars.py.

Run by hand, where dicebear-core 10.7.0 and dicebear-styles 10.6.0 are installed.
"""

import json
import sys
from pathlib import Path

import numpy as np

from diffusion.data.reading.svg import drawn, on_white

CHOSEN = [
    {"hair": "pixie", "eyes": "round", "mouth": "smile", "glasses": "round", "earrings": "hoop"},
    {"hair": "full", "eyes": "smiling", "mouth": "laughing", "facialHair": "beard"},
    {"hair": "turban", "eyes": "eyes", "mouth": "frown", "glasses": "square"},
    {"hair": "mrT", "eyes": "eyes", "mouth": "surprised", "facialHair": "scruff"},
    {"hair": "fonze", "eyes": "round", "mouth": "pucker", "earrings": "stud"},
]
PARTS = {"head": "standard", "ears": "attached", "nose": "curve", "eyebrows": "up"}
PARTS |= {"clothes": "collared"}
COLOURS = {"base": "#f9c9b6", "hair": "#9287ff", "facialHair": "#6a4e35", "glasses": "#d2eff3"}
COLOURS |= {"earring": "#f4d150", "shirt": "#6bd9e9", "eyes": "#101010", "mouth": "#202020"}
COLOURS |= {"eyebrows": "#303030"}


def main(styles: str) -> None:
    """Writes the pictures, uint8 (5, 3, 32, 32)."""
    from dicebear import Avatar, Style

    style, found = Style(json.loads(Path(styles, "micah.json").read_text())), []
    for chosen in CHOSEN:
        parts = {**PARTS, **chosen}
        options = {f"{name}Variant": [variant] for name, variant in parts.items()}
        for name in ("facialHair", "glasses", "earrings"):
            options[f"{name}Probability"] = 100 if name in parts else 0
        options |= {f"{name}Color": [value] for name, value in COLOURS.items()}
        svg = str(Avatar(style, {"seed": "", "backgroundColor": ["#ffeba4"], **options}))
        found.append(on_white(drawn(svg), 32))
    np.savez_compressed(Path(__file__).with_name("dicebear.npz"), pictures=np.stack(found))


if __name__ == "__main__":
    main(sys.argv[1])
