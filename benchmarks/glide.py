r"""What GLIDE's model goes on from: pictures with a hole, and pictures that noise has half hidden.

`python benchmarks/glide.py`, after

    diffusion fit --config configs/glide_emoji_inpaint.yaml --trainer.precision bf16-mixed

draws into docs/results, a column a picture, of pairs of concept and style that training left out:

glide_inpainted.png: the picture; what is left of it; RePaint, without training, of
weights/glide_emoji; the network that was trained for it.

glide_edited.png: the picture; with another style asked for, drawn anew from 40, 60 and 80 % of the
way to noise.

How captions are obeyed is measured by text_to_image.py.
"""

import argparse
from pathlib import Path

import torch

from diffusion.data import Emoji
from diffusion.guidance import ClassifierFree, Inpaint
from diffusion.plots import pictures
from diffusion.sampler import Sampler
from diffusion.step import DDPM, RePaint, UniPC
from diffusion.systems.diffusion import Diffusion

APART, STEPS = 28, 20  # of the pairs, which picture; of the solver


def main() -> None:
    """Draws both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--glide", default="weights/glide_emoji")
    parser.add_argument("--inpainter", default="runs/glide_emoji_inpaint/checkpoints/last.ckpt")
    parser.add_argument("--root", default="data", help="where the emoji are")
    parser.add_argument("--to", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    model, inpainter = (
        Diffusion.load_from_checkpoint(path).eval() for path in (args.glide, args.inpainter)
    )
    data, scale = Emoji(root=args.root), ClassifierFree(3)
    data.setup("predict")
    batch = next(data.batches("pairs", 336))
    known, texts = batch["image"][::APART], batch["text"][::APART]
    columns = len(known)
    mask = torch.ones(columns, 1, 32, 32)
    mask[:, :, 14:, 8:24] = 0
    request = {"text": texts, "known": known, "mask": mask, "index": torch.arange(columns)}
    rows = [known, torch.where(mask > 0.5, known, 0)]
    for drawn, step, steps in ((model, RePaint(DDPM(), 10), 25), (inpainter, UniPC(), STEPS)):
        drawn.sampler = Sampler(step, steps, [scale, Inpaint()])
        rows.append(drawn.generate(request, range(columns)))
    pictures.save(pictures.grid(torch.cat(rows), columns), args.to / "glide_inpainted.png")
    rows, other = [known], [f"a google emoji of {text.split(' emoji of ')[1]}" for text in texts]
    for strength in (0.4, 0.6, 0.8):
        model.sampler = Sampler(UniPC(), STEPS, [scale], strength=strength)
        rows.append(model.generate({**request, "text": other}, range(columns)))
    pictures.save(pictures.grid(torch.cat(rows), columns), args.to / "glide_edited.png")


if __name__ == "__main__":
    main()
