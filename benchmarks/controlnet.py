r"""What ControlNets make of controls and captions of seen and unseen concepts, measured.

`python benchmarks/controlnet.py --controls runs/NAME/checkpoints/last.ckpt …` draws what is not
there yet into runs/controlnet, twenty pictures a file, and measures it: docs/results/controlnet.csv
has a row for each control, kind of captions, way and seed. The ways are "none", the base without
control; the strengths; "guess" mode; and "conflict", each caption with the control of another
sample at strength 1. Data are as a control was trained with them: its size, its styles. FD-EffNet
is no FID. `controlnet_pictures.py` draws pictures.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import kept
import torch
import yaml
from bench import SPLITS, Row, Split, fill, measured
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

import diffusion.data
from diffusion.common.hashing import weights_digest
from diffusion.data import Emoji, Images
from diffusion.data.controls.base import Control
from diffusion.guidance import ClassifierFree, ControlStrength, Guidance, Static
from diffusion.metrics import (
    Adherence,
    AskedColours,
    EfficientNet,
    FrechetDistance,
    Measure,
    SampleBatch,
    TextMeasure,
)
from diffusion.sampler import Sampler
from diffusion.step import DPMSolver, Step, UniPC
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

SOLVERS: dict[str, type[Step]] = {"unipc": UniPC, "dpmpp2m": DPMSolver}
NONE, GUESS, CONFLICT = "none", "guess", "conflict"


@dataclass(frozen=True)
class Drawer:
    """A model that draws by captions, and by a control if it has one.

    Attributes:
        model: The model.
        name: Of its control; "none" for a base.
        control: The control that it was trained with; None for a base.
        sampler: Solver and number of steps, and the scale of the captions' guidance.
        data: What `Emoji` is made with besides.
    """

    model: Diffusion
    name: str
    control: Control | None
    sampler: tuple[str, int, float]
    data: Mapping[str, Any]

    @property
    def mark(self) -> str:
        """What its pictures depend on, as a name of a folder."""
        solver, steps, scale = self.sampler
        weights = weights_digest(self.model.denoiser.network.state_dict())
        of = "".join(f"-{style}" for style in self.data.get("styles") or [])
        return f"{self.name}-{weights}-{solver}{steps}-s{scale:g}{of}"

    def __call__(self, batch: Any, noise: Sequence[int], way: str) -> Tensor:
        """Returns pictures (B, 3, H, W) of requests; the way says how strong the control is."""
        solver, steps, scale = self.sampler
        guidance: list[Guidance] = [ClassifierFree(scale)]
        if self.control is not None:
            s = float(way) if way not in (GUESS, CONFLICT) else 1.0
            guidance.append(ControlStrength(self.name, s, guess=way == GUESS))
        if self.data.get("low_size"):  # upsamplers are drawn with the clip
            guidance.append(Static())
        self.model.sampler = Sampler(SOLVERS[solver](), steps, guidance)
        return self.model.generate(move_data_to_device(batch, self.model.device), noise).cpu()


def drawers(args: argparse.Namespace) -> list[tuple[Drawer, Drawer]]:
    """Returns what was trained, as the command line names it, each behind its base."""
    sampler = args.solver, args.steps, args.scale
    base, found = Diffusion.load_from_checkpoint(args.base).eval().to(args.device), []
    for path in args.controls:
        model = Diffusion.load_from_checkpoint(path).eval().to(args.device)
        config = yaml.safe_load(torch.load(path, weights_only=True)["config"])
        about = config["data"]["init_args"]
        data = {key: about[key] for key in ("size", "low_size", "styles") if about.get(key)}
        ((name, control),) = about["controls"].items()
        kind = vars(diffusion.data)[control["class_path"].rsplit(".", 1)[-1]]
        trained = Drawer(model, name, kind(**control.get("init_args", {})), sampler, data)
        found.append((replace(trained, model=base, name=NONE, control=None), trained))
    return found


def asking(root: str, split: Split, drawer: Drawer) -> Images:
    """Returns the data, whose samples have the captions of a split and a drawer's control."""
    controls = {} if drawer.control is None else {drawer.name: drawer.control}
    data = Emoji(root=root, ask=split, controls=controls, **drawer.data)
    data.setup("test")
    return data


def requests(data: Images, numbers: Sequence[int], way: str, n: int) -> dict[str, Any]:
    """Returns what samples are asked to be; in conflict, by the control of sample i + n / 2."""
    batch = dict(data.on_after_batch_transfer(data.measured(numbers), 0))
    if way == CONFLICT:
        others = [(i + n // 2) % n for i in numbers]
        other = data.on_after_batch_transfer(data.measured(others), 0)
        batch |= {name: other[name] for name in data.controls}
    return batch


def folder(args: argparse.Namespace, drawer: Drawer, way: str, split: Split, seed: int) -> Path:
    """Returns where the pictures of a way lie."""
    name = f"{way}-{args.n}" if way == CONFLICT else way
    return args.out / drawer.mark / f"{name}-{split}-{seed}"


def ways(args: argparse.Namespace, drawer: Drawer) -> list[str]:
    """Returns the ways in which a model draws."""
    if drawer.control is None:
        return [NONE]
    return args.ways


def draw(args: argparse.Namespace, drawer: Drawer, trained: Drawer) -> None:
    """Draws all ways by what is asked of a trained one."""
    for split in args.splits:
        data = asking(args.root, split, trained)
        cells: list[tuple[str, int]] = [*product(ways(args, drawer), args.seeds)]
        for way, seed in cells:

            def by(numbers: range, noise: list[int], way: str = way, data: Images = data) -> Tensor:
                return drawer(requests(data, numbers, way, args.n), noise, way)

            where, what = folder(args, drawer, way, split, seed), f"{drawer.name} {way} {split}"
            kept.draw(where, args.n, seed, by, f"{what} {seed}")


def table(args: argparse.Namespace, base: Drawer, drawer: Drawer, judge: TrainedClip) -> None:
    """Measures all ways of a control on both splits; rows that are there already stay."""

    def by(way: str) -> Drawer:
        return base if way == NONE else drawer

    for split, captions in ((split, SPLITS[split]) for split in args.splits):
        data = asking(args.root, split, drawer)
        measures: list[Measure] = [Adherence(), FrechetDistance(EfficientNet(root=args.root))]
        if tuple(data.shape) == judge.shape:
            measures += [TextMeasure(judge), AskedColours()]
        for measure in measures:
            measure.prepare(data, Path(".cache"))

        def run(way: str, seed: int, data: Images = data, split: Split = split) -> Row:
            images = kept.drawn(folder(args, by(way), way, split, seed), args.n)
            asked = requests(data, range(len(images)), way, args.n)
            controls = {drawer.name: asked[drawer.name]}
            samples = SampleBatch(images, texts=asked["text"], controls=controls)
            row: Row = {"n": len(images), "steps": args.steps}
            for name, figure in measured(measures, samples).items():  # noqa: B023
                short = name.replace(f"adherence_{drawer.name}", "adherence")
                row[short] = round(figure.value, 4)
            return row

        about = {"control": drawer.name, "training": args.training, "captions": captions}
        keys = [
            ({**about, "way": way, "seed": seed}, way, seed)
            for way in (NONE, *ways(args, drawer))
            for seed in args.seeds
            if kept.whole(folder(args, by(way), way, split, seed), args.n)
        ]
        fill(args.to / "controlnet.csv", [(k, lambda w=w, s=s: run(w, s)) for k, w, s in keys])


def arguments(about: str | None) -> argparse.ArgumentParser:
    """Returns what the command lines of the table and of the pictures have in common."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--controls", nargs="+", required=True, help="checkpoints")
    parser.add_argument("--base", default="weights/glide_emoji")
    parser.add_argument("--solver", choices=SOLVERS, default="unipc")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--scale", type=float, default=3.0, help="of classifier-free guidance")
    parser.add_argument(
        "--ways", nargs="+", default=["0", "0.5", "1", "1.5", GUESS, CONFLICT], help="of drawing"
    )
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--device", default="cpu", help="where pictures are drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/controlnet"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    return parser


def main() -> None:
    """Makes what is not there yet."""
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--training", default="0", help="which training it is, for the table")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=[*SPLITS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--judge", default="weights/judge_emoji")
    args = parser.parse_args()
    trained = drawers(args)
    judge = TrainedClip(args.judge)
    for base, drawer in trained:
        draw(args, base, drawer)
        draw(args, drawer, drawer)
    for base, drawer in trained:
        table(args, base, drawer, judge)


if __name__ == "__main__":
    main()
