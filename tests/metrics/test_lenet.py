import pytest
import torch

from diffusion.common.pixels import quantize
from diffusion.metrics import LeNet, frechet, kernel
from diffusion.metrics.features.base import real_features
from diffusion.metrics.real_images import collect, selected


def test_reads_digits(lenet, digits):
    assert lenet.accuracy > 0.95
    images, labels = collect(digits, "test")
    features, logits = lenet(images)
    assert features.shape == (len(images), 84)
    assert features.dtype == logits.dtype == torch.float32
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(lenet.accuracy)


def test_second_prepare_only_loads(lenet, digits, cache, monkeypatch):
    monkeypatch.setattr(LeNet, "_fit", lambda *_: pytest.fail("trained again"))
    again = LeNet()
    again.prepare(digits, cache)
    assert again.fingerprint == lenet.fingerprint
    assert again.accuracy == lenet.accuracy
    assert not list(cache.glob(".*"))


def test_same_weights_whatever_the_global_seed(digits, tmp_path):
    prints = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        extractor = LeNet(steps=3, width=4)
        with torch.inference_mode():  # as in Lightning's test
            extractor.prepare(digits, tmp_path / str(seed), progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        prints.append(extractor.fingerprint)
    assert prints[0] == prints[1]


def test_settings_have_their_own_files(digits, tmp_path):
    for settings in ({"steps": 2}, {"steps": 3}, {"steps": 2, "seed": 1}):
        LeNet(**settings, width=4).prepare(digits, tmp_path, progress=False)
    assert len(list(tmp_path.glob("lenet-*.pt"))) == 3


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 20, 36), (1, 64, 64)])
def test_other_sizes(shape, tmp_path):
    class Random:
        num_classes = 3

        def batches(self, split, batch_size=500):
            yield {"image": torch.rand(30, *shape) * 2 - 1, "label": torch.arange(30) % 3}

        def fingerprint(self, split):
            return split

    Random.shape = shape
    extractor = LeNet(steps=2, width=4)
    extractor.prepare(Random(), tmp_path, progress=False)
    features, logits = extractor(torch.zeros(2, *shape, dtype=torch.uint8))
    assert features.shape == (2, 84)
    assert logits.shape == (2, 3)


def test_halves_are_disjoint_for_odd_batches():
    class Counted:
        def batches(self, split, batch_size=500):
            for part in torch.arange(20).split(3):
                yield {"image": (part.float() / 127.5 - 1).view(-1, 1, 1, 1), "label": part}

    images, labels = collect(Counted(), "train", "even")
    assert labels.tolist() == images.flatten().tolist() == list(range(0, 20, 2))
    assert collect(Counted(), "train", "odd")[1].tolist() == list(range(1, 20, 2))
    assert collect(Counted(), "train")[1].tolist() == list(range(20))


def test_real_features_are_stored_by_content(lenet, digits, tmp_path, monkeypatch):
    odd = real_features(digits, "train", "odd", lenet, tmp_path)
    even = real_features(digits, "train", "even", lenet, tmp_path)
    assert abs(len(odd) - len(even)) <= 1
    assert len(list(tmp_path.glob("features-lenet-*.pt"))) == 2
    monkeypatch.setattr(LeNet, "__call__", lambda *_: pytest.fail("computed again"))
    assert torch.equal(real_features(digits, "train", "odd", lenet, tmp_path), odd)


@pytest.mark.slow
def test_distances_grow_with_noise(lenet, digits, cache):
    reference = real_features(digits, "train", "odd", lenet, cache)
    images = torch.cat([batch["image"] for batch in digits.batches("test")])
    noise = torch.randn_like(images)
    sets = [lenet(quantize(images + s * noise))[0] for s in (0, 0.3, 0.8)]
    for distance in (frechet, kernel):
        floor, some, much = (distance(x, reference) for x in sets)
        assert floor < some < much
        assert much > 5 * abs(floor)


def test_half_against_half_is_the_floor(lenet, digits, cache):
    """What the network learned from is no nearer than what it has not seen, by much."""
    reference = real_features(digits, "train", "odd", lenet, cache)
    learned = real_features(digits, "train", "even", lenet, cache)[:500]
    held_out = real_features(digits, "test", "all", lenet, cache)
    assert frechet(learned, reference) == pytest.approx(frechet(held_out, reference), rel=0.5)


def test_needs_labels(tmp_path):
    class Unlabelled:
        num_classes = None
        shape = (1, 8, 8)

    with pytest.raises(ValueError, match="is None; expected labelled images"):
        LeNet().prepare(Unlabelled(), tmp_path)


@pytest.mark.parametrize("key", ["steps", "width", "features"])
def test_settings_are_checked(key):
    with pytest.raises(ValueError, match=rf"LeNet.{key}: 0; expected at least 1"):
        LeNet(**{key: 0})


def test_pick_keeps_empty_batches_out():
    class One:
        def batches(self, split, batch_size=500):
            yield {"image": torch.zeros(1, 1, 2, 2)}

    assert list(selected(One(), "train", "odd")) == []
    with pytest.raises(ValueError, match="split 'train' has no images"):
        collect(One(), "train", "odd")
