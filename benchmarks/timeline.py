r"""What did each idea bring? One sheet of all systems from 2015 to today, a row an idea.

`python benchmarks/timeline.py` draws docs/results/timeline.png by the models of weights/ and those
runs that are there; a row whose run is missing is left out, and named. Noise k of a row is noise k
of all others with pictures of that size. All rows of emoji but ControlNet's are asked for the same
six prompts, and those from "no text" to "Imagen" are drawn by one network, weights/glide_emoji, its
upsamplers and what guides it, so that what differs from row to row is the idea. Nothing is chosen
among samples.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from text_to_image_drawing import CLIP, Draw, Way
from torch import Tensor

from diffusion.data import Avatars, Emoji, KeyPoints, Silhouette
from diffusion.data.identities.another import WithAnother
from diffusion.guidance import (
    Classifier,
    ClassifierFree,
    ControlStrength,
    Guidance,
    ImageStrength,
    Static,
)
from diffusion.plots import pictures
from diffusion.plots.captioned import labelled
from diffusion.sampler import Sampler
from diffusion.step import DDIM, DDPM, Step, UniPC
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.cascade import Cascade
from diffusion.systems.frozen import Trained
from diffusion.systems.swapping.swap_figures import source_of
from diffusion.systems.swapping.swapper import Swapper

PROMPTS = [
    "a google emoji of a grinning face",
    "a microsoft emoji of a red heart",
    "an openmoji emoji of a green apple",
    "a google emoji of a fox",
    "a twitter emoji of a pizza",
    "a microsoft emoji of a house",
]
N, TILE = len(PROMPTS), 128
GLIDE, UPSAMPLER = "weights/glide_emoji", "weights/glide_emoji_upsampler"
LONGER = "weights/prompt_upsampler_emoji"


def last(name: str) -> str:
    """Returns where the checkpoint of a configuration lies."""
    return f"runs/{name}/checkpoints/last.ckpt"


class Sheet:
    """Gathers rows.

    Args:
        root: Where the data are.
        dalle3: Where dalle3.py's generators are.
    """

    def __init__(self, root: str, dalle3: str) -> None:
        self.root, self.dalle3, self.by = root, dalle3, Draw(last("dalle2_prior_emoji"))
        self.rows, self.names = list[Tensor](), list[str]()

    def add(self, name: str, draw: Callable[[], Tensor], *needed: str) -> None:
        """Draws a row of N pictures in [−1, 1], if all that it needs is there."""
        if missing := [path for path in needed if not Path(path).exists()]:
            print(f"left out: {name}, without {', '.join(missing)}")
            return
        with torch.no_grad():
            x = draw()[:N].clamp(-1, 1)
        print(name, flush=True)
        self.rows.append(zoomed(x.expand(-1, 3, -1, -1)))
        self.names.append(name)

    def drawn(
        self, path: str, step: Step, steps: int, scale: float, prompts: Sequence[str], **more: Any
    ) -> Tensor:
        """Returns pictures by a model, guided without a classifier unless the scale is 0."""
        model = self.by.model(path)
        model.sampler = Sampler(step, steps, [ClassifierFree(scale)])
        return model.generate({"text": list(prompts), **more}, range(len(prompts)))

    def by_way(self, *way: Any, **options: Any) -> Tensor:
        """Returns pictures by a way of text_to_image.py."""
        return self.by(Way(*way, **options), {"text": PROMPTS}, range(N))

    def cascade(self, *stages: str) -> Tensor:
        """Returns pictures of N prompts, each stage from the one before."""
        first = Sampler(UniPC(), 10, [ClassifierFree(3.0)])
        then = [Sampler(DDIM(), 25, [Static()]) for _ in stages[1:]]
        return Cascade([*stages], [first, *then]).eval().generate({"text": PROMPTS}, range(N))


def zoomed(x: Tensor) -> Tensor:
    """Returns pictures of `TILE` pixels, each pixel a square."""
    k = TILE // x.shape[-1]
    return x.repeat_interleave(k, -1).repeat_interleave(k, -2)


def digits(sheet: Sheet) -> None:
    """2015, and guidance by a classifier, on digits."""
    base, classifier = last("quickstart"), last("classifier_digits")

    def guided(*guides: Guidance) -> Tensor:
        model = sheet.by.model(base)
        model.sampler = Sampler(DDIM(), 50, [ClassifierFree(0.0), *guides, Static()])
        return model.generate({"label": torch.arange(N)}, range(N))

    def dpm() -> Tensor:
        return sheet.by.model(last("dpm_digits")).generate({"index": torch.arange(N)}, range(N))

    sheet.add("2015 DPM: a network undoes noise, step by step", dpm, last("dpm_digits"))
    sheet.add(
        "2021 ADM: a classifier says which digit, 0 … 5",
        lambda: guided(Classifier(10.0, Trained(classifier))),
        base,
        classifier,
    )


def one_network(sheet: Sheet) -> None:
    """From 2020 to Imagen, by one network."""
    nothing = [""] * N
    sheet.add(
        "2020 DDPM: 250 steps, no text",
        lambda: sheet.drawn(GLIDE, DDPM(), 250, 1, nothing),
    )
    sheet.add("2020 DDIM: 25 steps, no text", lambda: sheet.drawn(GLIDE, DDIM(), 25, 1, nothing))
    sheet.add(
        "2021 CLIP guidance: a text model pulls at the model above",
        lambda: sheet.by_way("CLIP guidance", GLIDE, 10, clip=CLIP),
    )
    sheet.add(
        "2021 GLIDE: the network reads the text",
        lambda: sheet.by_way("GLIDE", GLIDE, 1),
    )
    sheet.add(
        "2022 classifier-free guidance: and is told to mean it, s = 3",
        lambda: sheet.by_way("GLIDE", GLIDE, 3),
    )
    sheet.add("2021 GLIDE's upsampler: 64 pixels", lambda: sheet.cascade(GLIDE, UPSAMPLER))
    sheet.add(
        "2022 DALL-E 2: through an embedding of a picture",
        lambda: sheet.by_way("DALL-E 2", last("dalle2_decoder_emoji"), 3, "prior"),
        last("dalle2_decoder_emoji"),
        last("dalle2_prior_emoji"),
    )
    sheet.add(
        "2022 Imagen: a third stage, 128 pixels",
        lambda: sheet.cascade(GLIDE, UPSAMPLER, last("imagen_emoji_128")),
        last("imagen_emoji_128"),
    )


def captions(sheet: Sheet) -> None:
    """DALL-E 3, by two generators that differ in their captions, each asked as it learned."""

    def row(name: str, words: str, prompts: Callable[[], list[str]]) -> None:
        path = f"{sheet.dalle3}/{name}/checkpoints/last.ckpt"

        def draw() -> Tensor:
            return sheet.by.model(path).generate({"text": prompts()}, range(N))

        sheet.add(f"2023 DALL-E 3: learned from {words}", draw, path)

    def detailed() -> list[str]:
        return PromptUpsampler.load_from_checkpoint(LONGER).eval().rewrite(PROMPTS)

    row("noisy_0", "bad captions", lambda: PROMPTS)
    row("detailed_0", "a captioner's captions, prompts made longer", detailed)


def control(sheet: Sheet) -> None:
    """ControlNet: silhouettes of real pictures of the prompts' next neighbours in the data."""
    data = Emoji(sheet.root, captions="short", controls={"silhouettes": Silhouette()})
    data.setup("test")
    asked = data.on_after_batch_transfer(data.measured(range(N)), 0)
    path = last("controlnet_emoji_silhouettes")
    sheet.add("silhouettes of real pictures", lambda: 2 * asked["silhouettes"] - 1, path)
    sheet.add(
        "2023 ControlNet: obeyed, with their captions",
        lambda: sheet.drawn(path, UniPC(), 10, 3, asked["text"], silhouettes=asked["silhouettes"]),
        path,
    )


def persons(sheet: Sheet) -> None:
    """InstantID and the swapper, on persons that no network has seen."""
    data = Avatars(sheet.root, ask="test", controls={"pose": KeyPoints()})
    data.setup("test")
    asked = data.on_after_batch_transfer(data.measured(range(4 * N)), 0)
    first = [list(asked["person"]).index(p) for p in asked["person"].unique()][:N]
    who = asked["identity"][first]
    path, swapper = last("instantid_avatars"), last("swapper_avatars")

    def drawn() -> Tensor:
        model = sheet.by.model(path)
        guides = [ImageStrength("identity", 0.8), ControlStrength("pose", 0.8)]
        model.sampler = Sampler(UniPC(), 12, [ClassifierFree(2.0), *guides])
        pose = asked["pose"][:1].expand_as(who)
        return model.generate({"text": [""] * N, "identity": who, "pose": pose}, range(N))

    sheet.add("pictures of persons", lambda: who, path)
    sheet.add("2024 InstantID: them, all in one pose", drawn, path)
    test = data.split("test")
    assert isinstance(test, WithAnother)
    targets = [i * len(test) // N for i in range(N)]
    x, y = (
        data.normalize(test.__getitems__(rows)["image"])
        for rows in (targets, [source_of(test, i) for i in targets])
    )
    sheet.add("sources", lambda: y, swapper)
    sheet.add("targets", lambda: x, swapper)
    sheet.add(
        "2020 face swap: the targets with the sources' faces",
        lambda: Swapper.load_from_checkpoint(swapper, judge=None).eval().swap(x, y),
        swapper,
    )


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", default="data", help="where the data are")
    parser.add_argument("--dalle3", default="runs/dalle3", help="where dalle3.py's generators are")
    parser.add_argument("--to", type=Path, default=Path("docs/results/timeline.png"))
    args = parser.parse_args()
    sheet = Sheet(args.root, args.dalle3)
    for part in (digits, one_network, captions, control, persons):
        part(sheet)
    page = labelled(pictures.grid(torch.cat(sheet.rows), N), sheet.names)
    pictures.save(page, args.to)


if __name__ == "__main__":
    main()
