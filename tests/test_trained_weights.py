"""weights/: each folder is the model that its card says, and draws what it is asked for."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from diffusion.callbacks.generation import digests
from diffusion.common.pixels import scaled
from diffusion.data import Emoji
from diffusion.guidance import ClassifierFree, Static
from diffusion.metrics.captions.caption_retrieval import matching
from diffusion.networks import efficientnet_lite0
from diffusion.networks.text import word_vectors
from diffusion.networks.text.minilm import PACKAGE
from diffusion.networks.towers import independent_parts
from diffusion.pipeline import Pipeline
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.frozen import TrainedClip
from diffusion.systems.generative import Generative

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("weights/*/model.safetensors"))
MINILM = list((ROOT / "data").glob(f"{PACKAGE.stem}*"))
LITE0 = list((ROOT / "data").glob(f"{efficientnet_lite0.PACKAGE.stem}*"))
WORDS = list((ROOT / "data").glob(f"{word_vectors.PACKAGE.stem}*"))
DRAWN = list((ROOT / "data/emoji").glob("google-32-*"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """Where the configurations find data/."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_what_its_card_says(folder):
    if folder.name.startswith("judge") and not LITE0:
        pytest.skip("EfficientNet's package is not in data/")
    module = Restorable.load_from_checkpoint(folder)
    card = (folder / "README.md").read_text()
    assert f"{sum(p.numel() for p in module.state_dict().values()):,} parameters" in card
    if isinstance(module, Generative):
        assert digests(module)[0] in card
    assert (folder / "model.safetensors").stat().st_size < 12e6
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        found = [file.get_tensor(name) for name in file.keys()]
    assert {x.dtype for x in found if x.numel() > 1 and x.is_floating_point()} == {torch.half}


@pytest.mark.skipif(not MINILM, reason="MiniLM's package is not in data/")
def test_colours_are_those_that_were_asked_for():
    pipeline = Pipeline.from_pretrained(ROOT / "weights/glide_emoji", device="cpu")
    things = ["red heart", "green apple", "blue heart"]
    sampler = Sampler(DDIM(), 10, [ClassifierFree(3.0), Static()])
    prompts = [f"a google emoji of a {thing}" for thing in things]
    drawn = pipeline.draw(prompts=prompts, seed=0, sampler=sampler)
    middle = drawn[:, :, 10:22, 10:22].float().mean((2, 3))
    assert middle.argmax(1).tolist() == [0, 1, 2]
    assert (middle.amax(1) - middle.median(1).values > 0.4).all()  # in [−1, 1]


@pytest.mark.skipif(not LITE0, reason="EfficientNet's package is not in data/")
def test_the_judge_shares_nothing_with_the_others():
    """Neither text encoder nor tower, nor the seed of training."""
    parts, seeds = {}, {}
    for folder in FOLDERS:
        module = Restorable.load_from_checkpoint(folder)
        parts[folder.name] = independent_parts(module)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        seeds[folder.name] = config["seed_everything"]
    judged, seed = parts.pop("judge_emoji"), seeds.pop("judge_emoji")
    assert len(judged) == 3
    assert all(any("MiniLM" in part for part in others) for others in parts.values())
    assert not judged & frozenset().union(*parts.values())
    assert seed not in seeds.values()


def split_of(data, text):
    """Returns the split that has a caption."""
    return next(name for name in data.SPLITS if matching([text], data, name) is not None)


@pytest.mark.skipif(not (LITE0 and WORDS and DRAWN), reason="not all packages are in data/")
def test_the_judge_tells_colours_and_things_apart():
    """Real pictures: of six captions their own is the nearest, and of three hearts their colour."""
    judge = TrainedClip("weights/judge_emoji")
    names = ["red heart", "green heart", "blue heart", "red apple", "green apple", "cat face"]
    texts = [f"a google emoji of a {name}" for name in names]
    data = Emoji(styles=["google"], download=False)
    data.setup("test")
    images = scaled(torch.cat([matching([text], data, split_of(data, text)) for text in texts]))
    cosines = judge.embed_image(images) @ judge.embed_text(texts).T
    assert cosines.argmax(1).tolist() == list(range(len(texts)))
    colours = [f"a google emoji of a {colour} heart" for colour in ("red", "green", "blue")]
    painted = judge.embed_image(images[:3]) @ judge.embed_text(colours).T
    assert painted.argmax(1).tolist() == [0, 1, 2]
