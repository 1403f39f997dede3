"""`diffusion swap` and `diffusion align`, with a swapper that is not trained."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, camera
from tiny import TINY

from diffusion.data import IdentityFolder

REAL = str(Path(__file__).parents[2] / "data")  # what `make data` has fetched
FACE = astronaut()[:256, 100:356]
TRAINED = {"class_path": "TrainedIdentity", "init_args": {"checkpoint": "who.ckpt"}}
MODEL = {
    "class_path": "Swapper",
    "init_args": {
        "network": {
            "class_path": "SwapGenerator",
            "init_args": {"image_size": 16, "identity": 6, "widths": [4, 4, 6, 8], "blocks": 1},
        },
        "encoder": TRAINED,
        "discriminator": {"class_path": "ProjectedDiscriminator", "init_args": {"size": 32}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.0}},
    },
}
VIT = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2, "out_channels": 6}
ENCODER = {
    "class_path": "IdentityEncoder",
    "init_args": {"network": {"class_path": "ViT", "init_args": VIT}, "persons": 4},
}


@pytest.fixture(scope="module")
def trained(once):
    """One step of an encoder, and one of a swapper."""
    with once("swap") as made, pytest.MonkeyPatch.context() as patch:
        from diffusion.networks.efficientnet_lite0 import Lite0
        from diffusion.networks.identity import projected_discriminator

        patch.setattr(
            projected_discriminator, "load_lite0", lambda _: Lite0().eval().requires_grad_(False)
        )
        tiny = copy.deepcopy(TINY)
        tiny["trainer"].update(max_steps=1, limit_val_batches=0)
        data = {"class_path": "swapping.Colours", "init_args": {"batch_size": 4}}
        made.write("who.yaml", {**tiny, "model": ENCODER, "data": data})
        made("fit", "--config", "who.yaml")
        (made.folder / "run/checkpoints/step_0000001.ckpt").rename(made.folder / "who.ckpt")
        tiny["trainer"]["default_root_dir"] = "swapper"
        made.write("swap.yaml", {**tiny, "model": MODEL, "data": data})
        made("fit", "--config", "swap.yaml")
        Image.fromarray(FACE).save("one.png")
        Image.fromarray(np.concatenate([FACE, FACE[:, ::-1]], 1)).save("two.png")
        Image.fromarray(FACE).convert("L").save("grey.png")
        Image.fromarray(FACE[:20, :20]).save("small.png")
        Image.fromarray(camera()[:256, 100:356]).save("profile.png")
        Image.fromarray(np.full((90, 120, 3), 200, np.uint8)).save("none.png")
    return made.folder


@pytest.fixture
def command(trained, run, monkeypatch):
    """The arguments of a swap, in the folder of the checkpoints."""
    monkeypatch.chdir(trained)

    def flags(source, target, *more):
        pair = ["swap", "--source", f"{source}.png", "--target", f"{target}.png"]
        return [*pair, "--ckpt_path", "swapper/checkpoints/last.ckpt", "--root", REAL, *more]

    return flags


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture).astype(int), dict(picture.info)


@pytest.mark.slow
def test_faces_are_swapped_where_they_are_and_marked(command, run, trained):
    run(*command("one", "two", "--output", "both.png"))
    run(*command("grey", "two", "--output", "first.png", "--face", "1"))
    before, _ = pixels("two.png")
    (both, about), (first, _) = pixels("both.png"), pixels("first.png")
    assert both.shape == before.shape
    changed, of_first = (np.abs(x - before).max(2) > 0 for x in (both, first))
    assert changed[:, :256].any()
    assert changed[:, 256:].any()
    assert of_first[:, :256].any()
    assert not of_first[:, 256:].any()  # the other face is as it was
    assert not changed[200:].any()  # and the body
    assert not changed[:20].any()
    assert "was swapped by a model" in about["diffusion.swap"]
    assert about["diffusion.model"].startswith("Swapper ")
    run(*command("one", "two", "--output", "both.png"))
    assert len([*trained.glob("both*.png")]) == 2  # the earlier one is kept


def test_aligned_pictures_are_taken_whole(command, run):
    run(*command("none", "none", "--output", "drawn.png", "--aligned"))
    found, about = pixels("drawn.png")
    before, _ = pixels("none.png")
    assert found.shape == before.shape
    middle = np.abs(found - before)[:, 15:105]
    assert (middle.max(2) > 0).mean() > 0.9
    assert not np.abs(found - before)[:, :12].any()  # outside the middle square
    assert about.keys() >= {"diffusion.swap", "diffusion.model", "diffusion.version"}


def test_the_mark_has_the_digest_of_the_exports_card(command, run):
    """One digest of a model's weights, whatever the system has beside its network."""
    run("export", "--to", "safetensors", "--ckpt", "swapper/checkpoints/last.ckpt", "--output", "x")
    said = re.search("Digest of the network: `(.{16})`", Path("x/README.md").read_text())[1]
    for path in ("swapper/checkpoints/last.ckpt", "x"):
        run(*command("none", "none", "--output", "y.png", "--aligned"), "--ckpt_path", path)
        assert pixels("y.png")[1]["diffusion.model"] == f"Swapper {said}, {path}"


LOOKED_FOR = [  # by the face finder, which takes its time
    ("none", "one", (), "source: none.png; expected a face of at least 20 pixels"),
    ("one", "none", (), "target: none.png; expected a face of at least 20 pixels"),
    ("small", "one", (), "source: small.png; expected a face of at least 20 pixels"),
    ("profile", "one", (), "source: profile.png; expected a face from the front, the one that was"),
    ("one", "profile", (), "target: profile.png; expected a face from the front, the one that was"),
    ("two", "one", (), "source: two.png; expected 1 face, there are 2: cut out one"),
    ("one", "two", ("--face", "3"), "face: 3; expected 1 … 2, or 0 for all"),
    ("no", "one", (), "source: no.png; expected a picture, there is no such file"),
]


@pytest.mark.parametrize(
    ("source", "target", "more", "said"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in LOOKED_FOR),
        ("one", "one", ("--output", "a.jpg"), "output: a.jpg; expected a name that ends with .png"),
        (
            "one",
            "one",
            ("--prompt", "a man"),
            "prompt: given; expected nothing, as a Swapper draws",
        ),
        ("one", "one", ("--base", "b.ckpt"), "base: given; expected nothing, as the checkpoint"),
        ("one", "one", ("--grown", "2"), "grown: 2.0; expected at most 1 without --aligned"),
        ("one", "one", ("--encoder", "no.ckpt"), "checkpoint: no.ckpt; expected a file of weights"),
    ],
)
def test_what_cannot_be_swapped_is_one_line(command, refused, source, target, more, said):
    more = more if "--output" in more else (*more, "--output", "refused.png")
    assert refused(*command(source, target, *more)).startswith(said)
    assert not Path("refused.png").exists()


def test_another_encoder_is_refused(command, refused, trained):
    other = trained / "other.ckpt"
    content = torch.load(trained / "who.ckpt", weights_only=True)
    for value in content["state_dict"].values():
        value.add_(1)
    torch.save(content, other)
    said = refused(*command("one", "one", "--output", "refused.png", "--encoder", str(other)))
    assert "expected the same weights (--model.encoder.checkpoint says where they are)" in said


@pytest.mark.slow
def test_photographs_become_a_folder_of_persons(run, trained, monkeypatch, refused, capsys):
    monkeypatch.chdir(trained)
    for person, flip in (("ann", 1), ("bob", -1)):
        folder = Path("photos", person)
        folder.mkdir(parents=True)
        for i, side in enumerate((0, 10)):
            Image.fromarray(FACE[side:, ::flip]).save(folder / f"{i}.png")
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save("photos/ann/none.png")
    run("align", "--folder", "photos", "--output", "aligned", "--size", "32", "--root", REAL)
    assert "ann/none.png" in capsys.readouterr().out
    data = IdentityFolder(root="aligned", size=32, val_share=0.4, batch_size=2)
    data.setup("fit")
    batch = next(data.batches("train"))
    assert batch["image"].shape == (2, 3, 32, 32)
    # One photograph, cut at another place, is aligned to the same picture, but for a pixel's part.
    assert (batch["image"] - batch["identity"]).abs().mean() < 0.06
    said = refused("align", "--folder", "photos", "--output", "aligned", "--root", REAL)
    assert said.startswith("output: aligned exists; expected the name of a new folder")
