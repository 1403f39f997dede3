import copy
import json
from pathlib import Path

import pytest
import torch
from tiny import TINY

from diffusion.data.identities.another import WithAnother
from diffusion.data.identities.base import Identities
from diffusion.data.sets import Memory
from diffusion.spec import DataSpec
from diffusion.systems.embeddings.person_embedding import FrozenPersonEmbedding, PersonEmbedding
from diffusion.systems.identity.identity_encoder import IdentityEncoder

NETWORK = {"image_size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "out_channels": 6}
MODEL = {
    "class_path": "IdentityEncoder",
    "init_args": {
        "network": {"class_path": "ViT", "init_args": NETWORK},
        "persons": 6,
        "scale": 16.0,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0e-2}},
        "crop": 1,
    },
}


class Plain(Identities):
    """Persons of one colour each, with noise: 6 to train on, 6 others."""

    shape = (3, 8, 8)

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        person = torch.arange(12).repeat_interleave(5)
        colour = torch.randint(60, 200, (12, 3, 1, 1), generator=generator)[person]
        noise = torch.randint(-20, 20, (60, 3, 8, 8), generator=generator)
        pictures = Memory((colour + noise).byte())
        self.train_set = WithAnother(pictures, person, range(30))
        self.val_set = self.test_set = WithAnother(pictures, person, range(30, 60))


@pytest.fixture(scope="module")
def trained(once):
    with once("identity") as made:
        tiny = copy.deepcopy(TINY)
        tiny["trainer"].update(limit_val_batches=1.0, limit_test_batches=1.0, max_steps=40)
        tiny["trainer"].update(val_check_interval=40)
        data = {"class_path": "test_identity_encoder.Plain", "init_args": {"batch_size": 15}}
        made.write("identity.yaml", {**tiny, "model": MODEL, "data": data})
        made("fit", "--config", "identity.yaml")
        made("test", "--trust", "--ckpt_path", "run/checkpoints/last.ckpt")
    return made.folder


def test_persons_that_training_has_not_seen_are_told_apart(trained):
    record = json.loads((trained / "run/identity.json").read_text())
    figures = record["figures"]
    assert figures["auc"] > 0.85
    assert figures["eer"] < 0.25
    assert figures["rank1"] > 0.6
    assert figures["same"] > figures["other"]
    assert (record["pictures"], record["persons"], record["width"]) == (30, 6, 6)
    assert sum(record["cosines"]["same"]) == pytest.approx(1)
    assert (trained / "run/identity.png").stat().st_size > 1000


def test_an_encoder_comes_back_from_its_checkpoint(trained):
    path = str(trained / "run/checkpoints/last.ckpt")
    again = IdentityEncoder.load_from_checkpoint(path, trust=True)
    assert again.width == 6
    assert again.embed(torch.zeros(2, 3, 8, 8)).shape == (2, 6)


def test_what_does_not_fit_is_refused_before_training(refused, tiny, run):
    data = {"class_path": "test_identity_encoder.Plain", "init_args": {"batch_size": 15}}
    run.write("identity.yaml", {**tiny, "model": MODEL, "data": data})
    said = refused("fit", "--config", "identity.yaml", "--model.persons=7")
    assert said == "model.persons: 7; expected 6, the persons that Plain has to train on"
    said = refused("fit", "--config", "identity.yaml", "--data=Digits")
    assert said.startswith("data: Digits does not say who is seen; expected data with several")
    said = refused("fit", "--config", "identity.yaml", "--model.margin=3")
    assert said.startswith("model.margin: 3.0 with model.scale 16.0; expected 0 ≤ margin < π / 2")
    assert Path(__file__).exists()


def test_a_trained_encoder_is_fixed_and_knows_its_size(trained):
    file = str(trained / "run/checkpoints/last.ckpt")
    frozen, module = PersonEmbedding(file), IdentityEncoder.load_from_checkpoint(file).eval()
    x = torch.rand(3, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        assert torch.equal(frozen.encode(x), module.embed(x))  # of its own length
    assert (frozen.width, frozen.shape) == (6, (3, 8, 8))
    assert not any(p.requires_grad for p in frozen.train().parameters())
    assert [v.numel() for v in frozen.state_dict().values()] == [0]  # a digest
    assert frozen.spec(DataSpec("Small", (3, 8, 8))).shape == (6,)
    with pytest.raises(ValueError, match=r"of pictures of shape \(3, 8, 8\); expected \(3, 16, 16"):
        frozen.spec(DataSpec("Large", (3, 16, 16)))
    with torch.no_grad():
        next(module.network.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"embeddings of length \[nan, .*expected numbers above 0"):
        FrozenPersonEmbedding(module.network, 6, module.spec)
