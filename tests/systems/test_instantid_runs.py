"""InstantID from the command line: whom it draws, by which encoder, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY

from diffusion.common.hashing import weights_digest
from diffusion.common.pixels import quantize
from diffusion.data.captioned_images import CaptionedImages
from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.identities.key_points import KeyPoints
from diffusion.data.sets import Memory
from diffusion.pipeline import Pipeline
from diffusion.systems.checkpoints.restorable import Restorable

HERE = "test_instantid_runs.Posed"
TEXT = "\n".join(
    f"{x} {y}" for x, y in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.5), (0.3, 0.8), (0.7, 0.8))
)
PROMPT = "--prompt=a red person"
ME, POSE = "--data.identity=me.png", "--data.pose=pose.txt"
DRAW = ("--data.samples=2", "--writer.format=npz", "--writer.folder=drawn")


class Posed(Identities, CaptionedImages):
    """Persons of one colour each, with noise, a caption and five points."""

    has_beside = KeyPoints

    def __init__(self, **given):
        self.shape = (3, 8, 8)
        super().__init__(**given)

    def read_splits(self):
        random = torch.Generator().manual_seed(0)
        person = torch.arange(6).repeat_interleave(4)
        colour = torch.randint(60, 200, (6, 3, 1, 1), generator=random)[person]
        noise = torch.randint(-20, 20, (24, 3, 8, 8), generator=random)
        texts = [[f"a person {i}"] for i in person.tolist()]
        points = 8 * torch.rand(24, 5, 2, generator=random)
        pictures, drawn = (
            Memory((colour + noise).byte(), None, texts),
            dict.fromkeys(self.beside, 8),
        )
        made = [
            WithAnother(pictures, person, rows, points, drawn)
            for rows in (range(16), range(16, 24))
        ]
        self.train_set, self.val_set, self.test_set = made[0], made[1], made[1]
        return [text for (text,) in texts]


def tiny():
    config = copy.deepcopy(TINY)
    config["model"].pop("p_uncond")
    network = config["model"]["network"]["init_args"]
    del network["num_classes"]
    stream = {"encoder": {"class_path": "captioned.Bag", "init_args": {"width": 8}}}
    network.update(in_channels=3, streams={"text": {"class_path": "Stream", "init_args": stream}})
    config["data"] = {"class_path": HERE, "init_args": {"batch_size": 8, "samples": 2}}
    config["metrics"] = {"n": 4}
    return config


def identified():
    config = tiny()
    encoder = {"class_path": "captioned.SmallIdentity", "init_args": {"seed": 0}}
    sizes = {"encoder": encoder, "tokens": 3, "width": 8, "depth": 1, "heads": 2, "hidden": 8}
    file = {"checkpoint": "base/checkpoints/last.ckpt", "trust": True}
    config["model"]["network"] = {
        "class_path": "InstantID",
        "init_args": {
            "base": {"class_path": "TrainedNetwork", "init_args": file},
            "identity": {"class_path": "ResampledIdentity", "init_args": sizes},
            "pose": {"channels": 3, "widths": [4]},
        },
    }
    config["model"]["p_uncond"] = [{"keys": ["text", "identity"], "p": 0.1}]
    config["data"]["init_args"]["controls"] = {"pose": "KeyPoints"}
    return config


@pytest.fixture(scope="module")
def made(once):
    with once("instantid") as made:
        made.write("base.yaml", tiny())
        made("fit", "--config=base.yaml", "--trainer.default_root_dir=base")
        made.write("person.yaml", identified())
        made("fit", "--config=person.yaml")
        Image.new("RGB", (9, 8), (200, 40, 30)).save(made.folder / "me.png")
        (made.folder / "pose.txt").write_text(TEXT)
        made("predict", "--trust", "--ckpt_path", made.last, PROMPT, ME, POSE, *DRAW)
        yield made


@pytest.fixture
def here(made, run, monkeypatch):
    monkeypatch.chdir(made.folder)
    return made


def test_the_pipeline_draws_what_the_command_does(here):
    drawn = torch.from_numpy(np.load(next((here.folder / "drawn").glob("*.npz")))["images"])
    pipeline = Pipeline.from_pretrained(here.folder / "run", trust=True, device="cpu")
    given = {"prompts": "a red person", "identity": "me.png", "pose": "pose.txt"}
    images = quantize(pipeline.draw(2, **given)).permute(0, 2, 3, 1)
    assert torch.equal(images, drawn)
    saved = torch.load(here.last, weights_only=True)["state_dict"]
    marks = [name for name in saved if "base_" in name]
    assert len(marks) == 2
    assert all(saved[name].numel() == 0 for name in marks)


WRONG = {
    "nobody": ((PROMPT, POSE), "data.identity: null; expected a picture, or a folder of pictures"),
    "no pose": ((PROMPT, ME), "data.control: null; expected a picture, or a folder of picture"),
    "no file": ((PROMPT, POSE, "--data.identity=you.png"), "data.identity: you.png; expected a"),
    "encoder": (
        (PROMPT, ME, POSE, "--model.network.identity.encoder.seed=1"),
        "as model.network.identity.encoder, this one is base_",
    ),
    "size": (
        (PROMPT, ME, POSE, "--model.network.identity.encoder.width=5"),
        "as model.network.identity.encoder, this one is base_",
    ),
}  # fmt: skip


SOME_SLOW = [
    w if w in ("nobody", "encoder") else pytest.param(w, marks=pytest.mark.slow) for w in WRONG
]


@pytest.mark.parametrize("wrong", SOME_SLOW)
def test_what_does_not_fit_is_one_line(wrong, here, refused):
    flags, message = WRONG[wrong]
    assert message in refused("predict", "--trust", f"--ckpt_path={here.last}", *flags)


def test_a_face_is_swapped_without_training_and_marked(here, refused, run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("target.png")
    (here.folder / "target.txt").write_text(TEXT)
    swap = ["swap", "--trust", "--source=me.png", "--target=target.png", "--aligned"]
    wide = [*swap, "--grown=1.5", "--prompt=a red person", "--seed=3"]
    for path, flags in ((here.last, swap), (here.last, wide)):
        run(*flags, f"--ckpt_path={path}", f"--output={tmp_path}/c.png")
        with Image.open(tmp_path / "c.png") as picture:
            found, about = np.array(picture).astype(int), dict(picture.info)
        changed = (found != pixels).any(2)
        assert changed[8:14, 11:18].mean() > 0.9  # between eyes and mouth
        assert not changed[:, :3].any()  # beside the middle square
        assert not changed[:, 27:].any()
        assert changed.mean() > 0.1
    digest = weights_digest(
        Restorable.load_from_checkpoint(here.last, trust=True).denoiser.network.state_dict()
    )
    assert about["diffusion.model"] == f"InstantID {digest}, {here.last}"
    assert "was swapped by a model" in about["diffusion.swap"]
    base = f"--ckpt_path={here.folder / 'base/checkpoints/last.ckpt'}"
    line = refused(*swap, base, "--output=d.png")
    assert line.startswith("network: UNet; expected an InstantID of pixels")
    (here.folder / "base").rename(here.folder / "moved")
    try:
        flags = [*swap, f"--ckpt_path={here.last}", "--output=d.png"]
        assert "(where it is now: --encoder, --base)" in refused(*flags)
        run(*flags, "--base=moved/checkpoints/last.ckpt")
    finally:
        (here.folder / "moved").rename(here.folder / "base")


@pytest.mark.slow
def test_a_persons_picture_is_taken_as_it_is(here, refused, run):
    """Grey, of 20 pixels, of one: no face is looked for, the encoder sees the middle square."""
    folder = here.folder / "given"
    folder.mkdir()
    for name, shape in (("grey", (40, 30)), ("small", (20, 20, 3)), ("tiny", (1, 1, 3))):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(folder / f"{name}.png")
    flags = ["predict", "--trust", f"--ckpt_path={here.last}", PROMPT, POSE, DRAW[1]]
    run(*flags, "--data.samples=3", "--data.identity=given", "--writer.folder=of given")
    drawn = np.load(next((here.folder / "of given").glob("*.npz")))["images"]
    assert len(drawn) == 3
    (folder / "words.png").write_text("no picture")
    line = refused(*flags, "--data.samples=1", "--data.identity=given/words.png")
    assert line.startswith("data.identity: given/words.png; expected a picture")


@pytest.mark.slow
def test_a_network_that_reads_nobody_refuses_a_person(here, refused):
    last = f"--ckpt_path={here.folder / 'base/checkpoints/last.ckpt'}"
    line = refused("predict", "--trust", last, PROMPT, ME)
    assert line.startswith("data.identity: 'me.png'; expected null, as the network reads nobody")
