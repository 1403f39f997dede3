r"""Four ways from a sentence to a picture after equally many steps, and what reads the sentence.

All networks are trained from nothing on the same data for as many steps of as many pictures:

    small="--data.batch_size 64 --model.lr_scheduler.warmup 100 --seed_everything SEED"
    base="fit --config configs/imagen_emoji.yaml" to="--trainer.default_root_dir runs"
    diffusion $base $small $to/imagen_emoji-SEED
    diffusion $base --config configs/text/transformer.yaml $small $to/text_transformer-SEED
    diffusion $base --config configs/text/bag.yaml $small $to/text_bag-SEED
    flow="--config configs/objective/flow.yaml"
    diffusion $base $flow $small $to/emoji_flow-SEED
    diffusion $base --config configs/text/transformer.yaml $flow $small \
      $to/text_transformer_flow-SEED
    diffusion $base --config configs/text/bag.yaml $flow $small $to/text_bag_flow-SEED
    diffusion fit --config configs/dalle2_decoder_emoji.yaml --model.start null $small \
      --trainer.max_steps 1000 --model.lr_scheduler.total 1000 --model.optimizer.lr 5e-3 \
      --model.network.init_args.dropout 0.1 $to/decoder_flow-SEED

DALL-E 2 and CLIP guidance are of SEED 0 alone, and DALL-E 2's prior is runs/dalle2_prior_emoji, by
`diffusion fit --config configs/dalle2_prior_emoji.yaml`.

`python benchmarks/equal_compute.py` draws what is not there yet into runs/equal_compute and
measures it as text_to_image.py does: docs/results/equal_compute.csv has a row for each way,
training and kind of captions: of seen and unseen concepts, and of pairs, whose concepts and styles
are seen, but not together.

    frozen MiniLM   Imagen's way, joined to all attention
    transformer     GLIDE's way, trained with the pictures
    bag of words    a trained vector for each word, without the words beside it
    flow, Muon      MiniLM again, by the recipe that is the best on Fashion-MNIST, and the two
                    others, "flow, transformer" and "flow, bag of words"
    DALL-E 2        the prior and a decoder that also reads MiniLM
    CLIP guidance   the transformer's network without its caption, guided by weights/clip_emoji

x̂_0 is not clipped, but where CLIP reads it.

equal_compute_costs.csv has what each way has cost, a product and a sum are two operations: those of
training in 10¹⁵, the passes forward and back of the network, and of what else it draws with: the
prior's and those of weights/clip_emoji; and those of a picture in 10⁹, gradients of guidance among
them. The reading of texts by MiniLM, which is done once, is not in it.
"""

import argparse
from functools import cache
from pathlib import Path

import torch
from bench import WITH_PAIRS, Row, fill
from cost import Meter, flops
from text_to_image import asking, draw, sheet, table
from text_to_image_drawing import CLIP, Draw, Way, gflop, present

from diffusion.noise import SeededNoise
from diffusion.spec import Batch
from diffusion.systems.contrastive import Contrastive
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip

NAMES = {
    "imagen_emoji": "frozen MiniLM",
    "text_transformer": "transformer",
    "text_bag": "bag of words",
    "emoji_flow": "flow, Muon",
    "text_transformer_flow": "flow, transformer",
    "text_bag_flow": "flow, bag of words",
}
LAST = "checkpoints/last.ckpt"
SEEN = {"network": 64_000, "prior": 76_800, "CLIP": 384_000, "step": 4}  # pictures, in training


def ways(args: argparse.Namespace) -> list[Way]:
    """Returns those whose checkpoints are there: runs/NAME-SEED, made by the commands above."""
    every = [
        Way(f"{name}, training {seed}", f"{args.runs}/{run}-{seed}/{LAST}", scale)
        for scale in (3, 1)
        for seed in args.trainings
        for run, name in NAMES.items()
    ]
    decoder, transformer = (
        f"{args.runs}/{x}-0/{LAST}" for x in ("decoder_flow", "text_transformer_flow")
    )
    every.append(Way("DALL-E 2, training 0", decoder, 3, "prior"))
    every.append(Way("DALL-E 2, training 0", decoder, 1, "prior"))
    every.append(Way("CLIP guidance, training 0", transformer, 10, clip=CLIP))
    return present(every)


def step_flops(model: Diffusion | Contrastive, batch: Batch) -> float:
    """Returns the operations of a training step for each picture."""
    noise, x_0 = SeededNoise(0, range(len(batch["image"]))), batch["image"]
    model.train()
    with Meter() as meter:
        if isinstance(model, Contrastive):
            f, g = model.network.embed_image(x_0, torch.tensor(0)), model.read(batch)
            loss = (f @ model.network.embed_text(g).T).sum()
        else:
            x_0 = model.encoded(x_0)
            cond = model.network_condition({**batch, "noise": noise})
            t, eps = model.objective.draw(model.process, x_0, noise)
            loss = model.objective(model.denoiser, x_0, cond, t, eps).mean()
        loss.backward()
    model.zero_grad()
    model.eval()
    return flops(meter.ops) / len(noise)


def costs(args: argparse.Namespace, every: list[Way], by: Draw) -> None:
    """Counts operations."""
    batch = next(asking(args.root, "train").batches("train", SEEN["step"]))

    @cache  # ways share their parts
    def trained(path: str, pictures: int) -> float:
        kind = Contrastive if path == CLIP else Diffusion
        return step_flops(kind.load_from_checkpoint(path), batch) * pictures / 1e15

    def run(way: Way) -> Row:
        clip = trained(CLIP, SEEN["CLIP"]) if way.z or way.clip else 0
        prior = trained(args.prior, SEEN["prior"]) if way.z else 0
        row: Row = {"network": trained(way.model, SEEN["network"]), "prior": prior, "CLIP": clip}
        row["training"] = sum(float(x) for x in row.values())
        row = {name: round(float(x), 3) for name, x in row.items()}
        return row | {"GFLOP_per_picture": gflop(by, way)}

    rows = [({"way": way.name, "scale": way.scale}, lambda w=way: run(w)) for way in every]
    fill(args.table.with_name("equal_compute_costs.csv"), rows)


def main() -> None:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--trainings", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--prior", default=f"runs/dalle2_prior_emoji/{LAST}")
    parser.add_argument("--splits", nargs="+", choices=WITH_PAIRS, default=[*WITH_PAIRS])
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_compute"))
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    parser.add_argument("--device", default="cpu", help="where pictures are drawn")
    args = parser.parse_args()
    args.table, every = args.to / "equal_compute.csv", ways(args)
    by = Draw(args.prior, args.device)
    draw(args, every, by)
    table(args, every, TrainedClip("weights/judge_emoji"))
    first = [way for way in every if "training 0" in way.name]
    costs(args, first, by)
    sheet(args, first, by)


if __name__ == "__main__":
    main()
