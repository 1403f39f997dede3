r"""DALL-E 3's question: are better captions better pictures? Fourteen generators on emoji, judged.

`python benchmarks/dalle3.py` trains, draws and measures what is not there yet in runs/dalle3, and
gathers docs/results/dalle3.csv and the sheet dalle3.png. All generators are those of
configs/dalle3_emoji.yaml with equal steps; they differ in their captions alone (and three in their
seed):

    noisy        short captions, four in five spoilt as alt texts are: `AltText`
    short        a captioner's short captions, captions_short.json in runs/dalle3
    detailed     its detailed ones, captions_detailed.json
    true         the long captions that the pictures were described by
    detailed K%  K % detailed, the rest noisy; 0 % and 100 % are noisy and detailed
    noise K%     short captions, K % of them spoilt

A row is of 150 captions with two seeds of noise, of seen or of unseen concepts, by UniPC with ten
steps at s = 3. The prompts are short captions, long ones, or short ones made long by an upsampler
that learned the captioner's detailed captions (configs/prompt_upsampler_emoji.yaml). Whatever they
are, recall@1 and class are of the pictures' short captions and colours of their long ones, so that
rows compare. Averages are those of σ_rel = 0.1 after the last step that all generators have.

`--start runs/flow_emoji/checkpoints/last.ckpt` begins all of them with this model's weights, but
for all that reads its text, which starts anew: they know pictures, and learn from their captions
what words mean. It has to be of their process and parameterisation, as flow_emoji.yaml is.

`--weights noisy_0=FOLDER … upsampler=FOLDER` takes exported folders in the place of trainings, each
after its own steps and with its own averages; then these generators alone are measured.
"""

import argparse
import sys
from pathlib import Path

from bench import SPLITS
from dalle3_drawing import PROMPTS, upsample
from dalle3_figures import measure, sheet, table
from dalle3_generators import GENERATORS, UPSAMPLER, steps
from dalle3_training import START, command, side_by_side, texts, trunk, upsampler

PARTS = ("texts", "upsample", "train", "measure", "table", "sheet")


def named(text: str) -> tuple[str, Path]:
    """Returns NAME and FOLDER of NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if name not in (UPSAMPLER, *(one.folder for one in GENERATORS)) or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text}; expected a generator's name and a folder")
    return name, Path(folder)


def arguments() -> argparse.Namespace:
    """Returns what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--generator", help="a folder's name: measures this one alone")
    parser.add_argument("--among", nargs="+", help="folders' names: trains these alone")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--upsampler_steps", type=int, default=3000, help="of the upsampler")
    parser.add_argument("--start", type=Path, help="a model whose text is learned anew")
    parser.add_argument("--every", type=int, default=50, help="steps from snapshot to snapshot")
    parser.add_argument("--batch_size", type=int, help="by default the configuration's")
    parser.add_argument("--n", type=int, default=150, help="captions of a split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the noise")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=[*SPLITS])
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=[*PROMPTS])
    parser.add_argument("--weights", nargs="+", type=named, default=[], metavar="NAME=FOLDER")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", help="of training; by default bf16-mixed on a GPU alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--train_until", type=float, default=1e9, help="seconds from the start on")
    parser.add_argument("--styles", nargs="+", help="by default all four")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/dalle3"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    args.weights = dict(args.weights)
    return args


def main() -> None:
    """Makes what is not there yet."""
    args = arguments()
    if args.generator:
        far = steps(args)
        one = next(one for one in far if one.folder == args.generator)
        measure(args, one, far[one])
        return
    try:
        start = trunk(args) if args.start and "train" in args.only else None
    except (OSError, ValueError) as error:
        sys.exit(f"dalle3.py: {error}")
    if "texts" in args.only:
        texts(args)
    if "upsample" in args.only:
        if UPSAMPLER not in args.weights:
            side_by_side([(UPSAMPLER, upsampler(args))], args, START + args.train_until)
        upsample(args)
    if "train" in args.only:
        among = args.among or [one.folder for one in GENERATORS]
        jobs = [(x.folder, command(args, x, start)) for x in GENERATORS if x.folder in among]
        side_by_side(jobs, args, START + args.train_until)
    if "measure" in args.only:
        far = steps(args)
        print("measured:", ", ".join(f"{one.folder} after {k} steps" for one, k in far.items()))
        words = [sys.executable, *sys.argv, "--generator"]
        side_by_side([(one.folder, [*words, one.folder]) for one in far], args, float("inf"))
    if "table" in args.only:
        table(args)
    if "sheet" in args.only:
        sheet(args)


if __name__ == "__main__":
    main()
