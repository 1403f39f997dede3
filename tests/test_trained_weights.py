"""weights/: each folder is the model that its card says, and draws what it is asked for."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from diffusion.callbacks.generation import digests
from diffusion.guidance import ClassifierFree, Static
from diffusion.networks.text.minilm import PACKAGE
from diffusion.pipeline import Pipeline
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.generative import Generative

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("weights/*/model.safetensors"))
MINILM = list((ROOT / "data").glob(f"{PACKAGE.stem}*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_what_its_card_says(folder):
    module = Restorable.load_from_checkpoint(folder)
    card = (folder / "README.md").read_text()
    assert f"{sum(p.numel() for p in module.parameters()):,} parameters" in card
    if isinstance(module, Generative):
        assert digests(module)[0] in card
    assert (folder / "model.safetensors").stat().st_size < 12e6
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.half}


@pytest.mark.skipif(not MINILM, reason="MiniLM's package is not in data/")
def test_colours_are_those_that_were_asked_for(monkeypatch):
    monkeypatch.chdir(ROOT)
    pipeline = Pipeline.from_pretrained(ROOT / "weights/glide_emoji", device="cpu")
    things = ["red heart", "green apple", "blue heart"]
    sampler = Sampler(DDIM(), 10, [ClassifierFree(3.0), Static()])
    prompts = [f"a google emoji of a {thing}" for thing in things]
    drawn = pipeline.draw(prompts=prompts, seed=0, sampler=sampler)
    middle = drawn[:, :, 10:22, 10:22].float().mean((2, 3))
    assert middle.argmax(1).tolist() == [0, 1, 2]
    assert (middle.amax(1) - middle.median(1).values > 0.4).all()  # in [−1, 1]
