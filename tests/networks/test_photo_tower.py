"""The tower over a frozen network, whose weights are a formula's."""

import pytest
import torch
from captioned import Bag, Captioned

from diffusion.networks import PhotoTower, Towers, photo_tower
from diffusion.networks.efficientnet_lite0 import Lite0
from diffusion.networks.photo_tower import Depths
from diffusion.networks.towers import independent_parts
from diffusion.pipeline import trainer
from diffusion.systems.averages import RAW
from diffusion.systems.contrastive import Contrastive


def lite0(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Lite0().eval().requires_grad_(False)


@pytest.fixture
def tower(monkeypatch):
    monkeypatch.setattr(photo_tower, "load_lite0", lambda root: lite0())
    return PhotoTower(8, 4, 16, 0.2, 32)


def test_features_are_moments_of_the_stages_maps():
    """Hooks on the last block of each stage, and the network's own features."""
    net, maps = lite0(), []
    for i in (0, 2, 4, 7, 10, 14, 15):
        net.blocks[i].register_forward_hook(lambda _m, _x, out: maps.append(out))
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    found = Depths(net, 32)(x)
    parts = [
        f(h.flatten(2))
        for h in maps
        for f in (lambda h: h.mean(2), lambda h: h.std(2, correction=0))
    ]
    last = net.features(((x + 1) / 2 * 255 - 127) / 128)
    torch.testing.assert_close(found, torch.cat([*parts, last], 1), rtol=1e-3, atol=1e-4)
    assert found.shape[1] == Depths.width == 2848


def test_a_picture_is_computed_once_in_training(tower, monkeypatch):
    calls = []
    features = tower.base
    monkeypatch.setattr(tower, "base", lambda x: calls.append(len(x)) or features(x))
    x = (torch.randint(0, 256, (3, 3, 8, 8)) / 127.5 - 1).float()
    tower.train()
    first = tower._features(x[[0, 1, 0]])
    again = tower._features(x)
    assert calls == [2, 1]
    torch.testing.assert_close(first, again[[0, 1, 0]])
    torch.testing.assert_close(again, features(x), rtol=2**-10, atol=1e-4)
    tower.eval()
    assert torch.equal(tower(x, torch.zeros(3)), tower.head(tower.standard(features(x))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_features_are_those_of_float32_under_autocast(tower, dtype, training):
    tower.train(training)
    x = (torch.randint(0, 256, (3, 3, 8, 8)) / 127.5 - 1).float()
    exact = tower._features(x)
    tower._seen.clear()
    with torch.autocast("cpu", dtype):
        assert torch.equal(tower._features(x), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_trained_in_half_precision(tower, dtype):
    x, t = torch.rand(3, 3, 8, 8) * 2 - 1, torch.zeros(3, dtype=torch.long)
    tower.train()
    with torch.autocast("cpu", dtype):
        tower(x, t).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in tower.parameters() if p.requires_grad)


def test_only_the_head_is_trained_averaged_and_saved(tower, tmp_path):
    module = Contrastive(Towers(tower, Bag()))
    tower.base(torch.zeros(1, 3, 8, 8))
    before = {k: v.clone() for k, v in tower._base[0].state_dict().items()}
    fitting = trainer(max_steps=3, accelerator="cpu", limit_val_batches=0)
    fitting.fit(module, Captioned(batch_size=8))
    fitting.save_checkpoint(path := tmp_path / "judge.ckpt")
    saved = torch.load(path, weights_only=True)
    assert all(torch.equal(v, before[k]) for k, v in tower._base[0].state_dict().items())
    names = {k.removeprefix("network.image.") for k in saved["state_dict"] if "image" in k}
    assert {name.split(".")[0] for name in names} == {tower.mark, "standard", "head"}
    assert {name.split(".")[2] for name in saved.get(RAW, {}) if "image" in name} <= {"head"}


def test_parts_are_found_and_told_apart(tower, monkeypatch):
    one = independent_parts(Towers(tower, Bag()))
    assert len(one) == 3
    other = PhotoTower(8, 4, 16, 0.2, 32)
    shared = one & independent_parts(Towers(other, Bag()))
    assert any(part == f"the frozen network {tower.mark}" for part in shared)
    assert not any(part.startswith("the image tower") for part in shared)
    assert independent_parts(torch.nn.Linear(2, 2)) == frozenset()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"size": 100}, "network.size: 100; expected a multiple of 32"),
        ({"dropout": 1.0}, "network.dropout: 1.0; expected 0 ≤ dropout < 1"),
        ({"hidden": 0}, "hidden: 0; expected at least 1"),
    ],
)
def test_numbers_out_of_range(settings, line):
    with pytest.raises(ValueError, match=line):
        PhotoTower(**settings)


def test_pictures_of_another_size_are_refused(tower):
    with pytest.raises(ValueError, match=r"image_size: 8; expected \(16, 16\)"):
        tower(torch.zeros(1, 3, 16, 16), torch.zeros(1))
