import time

import pytest
import torch

from diffusion.metrics import Inception


class Pictures:
    shape = (1, 16, 16)
    num_classes = None


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of random weights: the real ones come from the network."""
    import torch_fidelity.feature_extractor_inceptionv3 as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = module.FeatureExtractorInceptionV3("x", ["2048"])
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


def test_features_and_fingerprint(weights, tmp_path):
    before = torch.get_rng_state()
    extractor = Inception(str(weights))
    extractor.prepare(Pictures(), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(extractor.fingerprint) == 16
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    features, logits = extractor(grey)
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    colour, _ = extractor(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(colour, features)


@pytest.mark.parametrize("given", [True, False])
def test_missing_weights_are_one_line_at_once(given, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extractor = Inception(str(tmp_path / "gone.pth") if given else None)
    start = time.perf_counter()
    with pytest.raises(
        FileNotFoundError, match=r"curl -L --create-dirs -o .*6726825d\.pth"
    ) as error:
        extractor.prepare(Pictures(), tmp_path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value)
    assert ("gone.pth" if given else "checkpoints") in str(error.value)


@pytest.mark.parametrize("content", [{"x": time.sleep}, {"x": torch.zeros(1)}, b"half a file"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="broken or another's") as error:
        Inception(str(path)).prepare(Pictures(), tmp_path)
    assert "\n" not in str(error.value)


def test_channels_are_checked(tmp_path):
    class Two(Pictures):
        shape = (2, 16, 16)

    with pytest.raises(ValueError, match="2 channels; expected 1 or 3"):
        Inception().prepare(Two(), tmp_path)
