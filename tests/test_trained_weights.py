"""weights/: each folder is the model that its card says, and draws what it is asked for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors import safe_open

from diffusion.callbacks.generation import digests
from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import scaled
from diffusion.data import Emoji
from diffusion.data.emoji.facts import STYLES
from diffusion.data.requests.small_pictures import area_means
from diffusion.guidance import ClassifierFree, Static
from diffusion.metrics.captions.caption_retrieval import matching
from diffusion.networks import efficientnet_lite0
from diffusion.networks.text import word_vectors
from diffusion.networks.text.minilm import PACKAGE
from diffusion.networks.towers import independent_parts
from diffusion.pipeline import Pipeline
from diffusion.sampler import Sampler
from diffusion.step import DDIM
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.cascade import Cascade
from diffusion.systems.checkpoints.restorable import Restorable
from diffusion.systems.diffusion import Diffusion
from diffusion.systems.frozen import TrainedClip
from diffusion.systems.generative import Generative

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("weights/*/model.safetensors"))
MINILM = list((ROOT / "data").glob(f"{PACKAGE.stem}*"))
LITE0 = list((ROOT / "data").glob(f"{efficientnet_lite0.PACKAGE.stem}*"))
WORDS = list((ROOT / "data").glob(f"{word_vectors.PACKAGE.stem}*"))
DRAWN = list((ROOT / "data/emoji").glob("google-32-*"))
ALL_DRAWN = all(list((ROOT / "data/emoji").glob(f"{style}-32-*")) for style in STYLES)
LARGE = list((ROOT / "data/emoji").glob("google-64-*"))
LARGEST, ALL = 12_000_000, 32_000_000  # bytes of a model, and of all files of the repository
FOUND = {"clip_emoji": 0.286, "judge_emoji": 0.351}  # recall@1 of docs/results.md and weights/


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
    draws = isinstance(module, Generative)
    digest = digests(module)[0] if draws else weights_digest(module.network.state_dict())
    assert digest in card
    assert (f"    diffusion predict --ckpt_path weights/{folder.name}\n" in card) == draws
    assert "None were measured" not in card
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        found = [file.get_tensor(name) for name in file.keys()]
    assert {x.dtype for x in found if x.numel() > 1 and x.is_floating_point()} == {torch.half}


def test_models_are_small():
    sizes = {path.name: (path / "model.safetensors").stat().st_size for path in FOLDERS}
    assert len(sizes) == 5
    assert {name: size for name, size in sizes.items() if size >= LARGEST} == {}


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_the_repository_is_small():
    """All files that git tracks, as they lie there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not (ROOT / ".git").exists():
        pytest.skip("it is no repository")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert {folder / "model.safetensors" for folder in FOLDERS} <= {*paths}
    sizes = {path: path.lstat().st_size for path in paths if path.exists()}
    assert sum(sizes.values()) < ALL, sorted(sizes, key=lambda x: sizes[x])[-10:]


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


def own_is_nearest(large, small):
    """Whether each picture, made small, is nearer to its own small picture than to all others."""
    distances = area_means(large, small.shape[-1])[:, None] - small
    found = distances.square().mean((2, 3, 4)).argmin(1)
    return found.tolist() == list(range(len(small)))


@pytest.mark.skipif(not (MINILM and DRAWN), reason="MiniLM's package or drawings are not in data/")
def test_the_upsampler_enlarges_the_picture_that_it_is_given():
    data = Emoji(styles=["google"], size=32, download=False)
    data.setup("test")
    batch = next(data.batches("val", 4, 4))
    model = Diffusion.load_from_checkpoint("weights/glide_emoji_upsampler").eval()
    model.sampler = Sampler(DDIM(), 2, [Static()])
    drawn = model.generate({"text": batch["text"], "low_res": batch["image"]}, range(4))
    assert drawn.shape == (4, 3, 64, 64)
    assert own_is_nearest(drawn, batch["image"])
    assert (area_means(drawn, 32) - batch["image"]).square().mean().sqrt() < 0.2  # of 2


@pytest.mark.skipif(not (MINILM and LARGE), reason="MiniLM or 64 x 64 drawings are not in data/")
def test_the_upsampler_is_nearer_to_real_pictures_than_interpolation():
    """Eight of validation, whose concepts training has not seen, from their own small versions."""
    data = Emoji(styles=["google"], size=64, download=False)
    data.setup("test")
    batch = next(data.batches("val", 8, 8))
    real, small = batch["image"], area_means(batch["image"], 32)
    model = Diffusion.load_from_checkpoint("weights/glide_emoji_upsampler").eval()
    model.sampler = Sampler(DDIM(), 3, [Static()])
    drawn = model.generate({"text": batch["text"], "low_res": small}, range(8))
    assert own_is_nearest(drawn, small)
    bilinear = F.interpolate(small, (64, 64), mode="bilinear")
    errors = [(x - real).square().mean().sqrt() for x in (drawn, bilinear)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.slow
@pytest.mark.skipif(not MINILM, reason="MiniLM's package is not in data/")
def test_a_cascade_of_both_folders_draws_what_each_draws_alone():
    """Stage k has its noise by the seed k 2³², and reads the picture of the one before."""
    folders = ["weights/glide_emoji", "weights/glide_emoji_upsampler"]
    samplers = [Sampler(DDIM(), 8, [ClassifierFree(3.0)]), Sampler(DDIM(), 3, [Static()])]
    things = ["red heart", "green apple", "blue heart", "cat face"]
    request = {"text": [f"a google emoji of a {thing}" for thing in things]}
    drawn = Cascade(folders, samplers).generate(request, range(4))
    assert drawn.shape == (4, 3, 64, 64)
    given = {}
    for number, (folder, sampler) in enumerate(zip(folders, samplers)):
        model = Diffusion.load_from_checkpoint(folder).eval()
        model.sampler, model.seed = sampler, number * 2**32
        alone = model.generate({**request, **given}, range(4))
        if not number:
            given = {"low_res": alone}
    assert torch.equal(drawn, alone)
    assert own_is_nearest(drawn, given["low_res"])
    middle = drawn[:3, :, 20:44, 20:44].mean((2, 3))
    assert middle.argmax(1).tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.skipif(not (MINILM and ALL_DRAWN), reason="not all packages are in data/")
def test_longer_prompts_are_of_known_words_and_of_the_right_kind():
    """Of concepts that no caption had; docs/methods.md has 74 % of the kinds right."""
    model = PromptUpsampler.load_from_checkpoint("weights/prompt_upsampler_emoji").eval()
    data = Emoji(captions="long", prompt="short", download=False)
    data.setup("test")
    batch = next(data.batches("test", 40, 40))
    prompts, true = batch["prompt"], [data.truth[text] for text in batch["text"]]
    words = {word for text in data.texts for word in re.findall(r"[\w'’-]+", text)}
    texts = model.rewrite(prompts)
    for prompt, text in zip(prompts, texts):
        assert text.startswith(f"{prompt}. ")
        assert {*re.findall(r"[\w'’-]+", text.removeprefix(prompt))} <= words
    said = [data.said(text)["class"] for text in texts]
    own, other = ([facts["class"] for facts in x] for x in (true, [*true[1:], true[0]]))
    right, by_chance = (sum(map(frozenset.__eq__, said, facts)) for facts in (own, other))
    assert right >= 24
    assert by_chance < right / 3


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


@pytest.mark.slow
@pytest.mark.skipif(
    not (MINILM and LITE0 and WORDS and ALL_DRAWN), reason="not all packages are in data/"
)
@pytest.mark.parametrize("name", FOUND)
def test_real_pictures_of_new_concepts_find_their_captions(name):
    """As often as the documentation says, which is a hundred times as often as by chance."""
    clip = TrainedClip(f"weights/{name}")
    data = Emoji(download=False)
    data.setup("test")
    batch = next(data.batches("val", 1000))
    n = len({*batch["text"]})
    assert n == len(batch["image"]) == 308
    cosines = clip.embed_image(batch["image"]) @ clip.embed_text(batch["text"]).T
    first = (cosines.argmax(1) == torch.arange(n)).double().mean().item()
    assert first == pytest.approx(FOUND[name], abs=0.02)
    assert first > 50 / n
