"""How much of what a file of captions says of emoji is true, beside a floor and a ceiling.

`python benchmarks/captions.py runs/captioner_emoji/captions.json` reads what `diffusion caption
--output` wrote. Pictures are counted once for each skin tone. The floor is the file's caption of
another picture of the same split, the ceiling the picture's own short or long caption.
"""

import argparse
import json
import random
from pathlib import Path

from diffusion.data import Emoji
from diffusion.data.sets import Versions
from diffusion.systems.captioning.hallucination import counts

SHARE = 0.1  # of the training pictures that configs/captioner_emoji.yaml learns from


def pictures(share: float) -> tuple[Emoji, dict[str, list[int]]]:
    """Returns the data, and the numbers of the pictures of each split, tones and all."""
    data = Emoji(captions="both", train_share=share, download=False)
    data.setup("fit")
    found: dict[str, list[int]] = {}
    for name, split in data.sets().items():
        assert isinstance(split, Versions)
        found[name] = [i for group in split.groups for i in group]
    return data, found


def shares(pairs: list[tuple[dict, dict]]) -> dict[str, tuple[float | None, float | None]]:
    """Returns precision and recall by kind, None where nothing is said."""
    return {
        kind: (both / said if said else None, both / true if true else None)
        for kind, (both, said, true) in counts(pairs).items()
    }


def main() -> None:
    """Prints a table of each split, and writes it beside the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--share", type=float, default=SHARE)
    args = parser.parse_args()
    written = json.loads(args.file.read_text())
    data, splits = pictures(args.share)
    every = pictures(1.0)[1]["train"]
    splits = {"seen": splits.pop("train"), **splits}
    code = [name.partition("-")[2] for name in data.names]
    known, rest = {code[i] for i in splits["seen"]}, sorted({*every} - {*splits["seen"]})
    splits["rest of training, concept seen"] = [i for i in rest if code[i] in known]
    splits["rest of training, concept unseen"] = [i for i in rest if code[i] not in known]
    splits["rest of training"] = rest
    detailed = any("picture" in texts[0] for texts in written.values())
    truth = list(data.truth.items())  # the short and the long caption of each, in order
    random.seed(0)
    record = {}
    for split, numbers in splits.items():
        rows = [i for i in numbers if data.names[i] in written]
        others = random.sample(rows, len(rows))
        found, floor, ceiling = [], [], []
        for i, other in zip(rows, others):
            (own, facts) = truth[TEXTS * i + detailed]
            found.append((data.said(written[data.names[i]][0]), facts))
            floor.append((data.said(written[data.names[other]][0]), facts))
            ceiling.append((data.said(own), facts))
        exact = sum(written[data.names[i]][0] == truth[TEXTS * i + detailed][0] for i in rows)
        print(f"{split}: {len(rows)} pictures, {exact} captions are the true ones")
        record[split] = {"n": len(rows), "exact": exact}
        for name, pairs in (("written", found), ("floor", floor), ("ceiling", ceiling)):
            record[split][name] = shares(pairs)
            cells = (
                f"{kind} {p if p is None else round(p, 3)} / {r if r is None else round(r, 3)}"
                for kind, (p, r) in record[split][name].items()
            )
            print(f"  {name:8} {'   '.join(cells)}")
    args.file.with_suffix(".figures.json").write_text(json.dumps(record, indent=1))


TEXTS = 2  # captions of each picture in `Emoji.truth`: all are different

if __name__ == "__main__":
    main()
