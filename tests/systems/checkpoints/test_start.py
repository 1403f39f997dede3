"""Training that starts from another model's weights."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from diffusion.networks import Stream, TextTransformer, UNet
from diffusion.systems.checkpoints.start import begin
from diffusion.systems.diffusion import Diffusion

STILL = ("--model.optimizer.lr=0", "--model.p_uncond=0")
INPAINTER = {"model": {"network": {"class_path": "Inpainter"}}}


@pytest.fixture
def base(fitted, run):
    """A copy of the checkpoint that may be deleted."""
    shutil.copy(fitted.last, "base.ckpt")
    return run.folder / "base.ckpt"


def test_it_starts_from_the_averaged_weights(run, base, same):
    run.fit("--model.start=base.ckpt", *STILL)
    saved, average = run.load(), run.load("base.ckpt")["state_dict"]
    assert same(saved["raw_state_dict"], {k: average[k] for k in saved["raw_state_dict"]})
    for name, weight in average.items():  # the average of weights that stay is what they are
        torch.testing.assert_close(saved["state_dict"][name], weight, rtol=0, atol=1e-6)
    assert not same(average, run.load("base.ckpt")["raw_state_dict"])
    assert saved["global_step"] == 4


def test_new_input_channels_start_at_zero(run, base, same):
    run.write("inpainter.yaml", INPAINTER)
    run.fit("--config", "inpainter.yaml", "--model.start=base.ckpt", *STILL)
    raw, average = run.load()["raw_state_dict"], run.load("base.ckpt")["state_dict"]
    first = "denoiser.network.conv_in.weight"
    assert raw[first].shape[1] == 3
    assert not raw[first][:, 1:].any()
    assert same(raw[first][:, :1].contiguous(), average[first])
    others = [name for name in raw if name != first]
    assert same({k: raw[k] for k in others}, {k: average[k] for k in others})
    run.fit("--config", "inpainter.yaml", "--model.start=base.ckpt", "--trainer.max_steps=2",
            "--trainer.default_root_dir=other")  # fmt: skip
    assert run.load("other/checkpoints/last.ckpt")["raw_state_dict"][first][:, 1:].any()


@pytest.mark.slow
def test_whoever_goes_on_or_loads_does_not_need_the_file(run, base, same):
    run.fit("--model.start=base.ckpt")
    run.fit("--model.start=base.ckpt", "--trainer.default_root_dir=whole", "--trainer.max_steps=6")
    base.unlink()
    Diffusion.load_from_checkpoint(run.last)
    run("predict", "--ckpt_path", run.last, "--data.samples=2")
    run("fit", "--ckpt_path", run.last, "--trainer.max_steps=6")
    whole = run.load("whole/checkpoints/last.ckpt")
    assert same(run.load()["raw_state_dict"], whole["raw_state_dict"])


def test_what_is_wrong_is_known_before_training(run, base, refused):
    def line(*flags):
        return refused("fit", "--config", "tiny.yaml", *flags)

    assert "model.start: nowhere.ckpt; expected a file" in line("--model.start=nowhere.ckpt")
    assert not (run.folder / "run").exists()  # it is said before anything is prepared
    run.folder.joinpath("text.ckpt").write_text("hello")
    assert "model.start: text.ckpt; expected tensors" in line("--model.start=text.ckpt")
    torch.save({"weights": torch.zeros(2)}, run.folder / "plain.ckpt")
    assert "expected a checkpoint of this project" in line("--model.start=plain.ckpt")
    other = line("--model.start=base.ckpt", "--model.network.channels=16")
    assert "model.start: base.ckpt is of another model: denoiser.network." in other
    assert "(32, 8); expected (64, 16)" in other
    fewer = line("--model.start=base.ckpt", "--model.network.num_classes=12")
    assert "embedding.label.weight is (11, 32); expected (13, 32)" in fewer
    assert not (run.folder / "run/checkpoints/last.ckpt").exists()


def test_fewer_input_channels_are_another_model(run, refused):
    run.write("inpainter.yaml", INPAINTER)
    run.fit("--config", "inpainter.yaml", "--trainer.max_steps=1")
    line = refused(
        *("fit", "--config", "tiny.yaml", "--model.start", run.last),
        "--trainer.default_root_dir=other",
    )
    assert "conv_in.weight is (8, 3, 3, 3); expected (8, 1, 3, 3)" in line


@pytest.mark.parametrize(
    ("streams", "anew"), [({"text": 8, "note": 8}, "note"), ({"text": 12}, "text")]
)
def test_streams_that_the_other_has_not_start_anew(streams, anew, tmp_path, caplog):
    def network(**widths):
        texts = {name: Stream(TextTransformer(width, 1, 2, 6)) for name, width in widths.items()}
        small = {"image_size": 8, "channels": 8, "multipliers": [1], "attention": [8], "blocks": 1}
        return UNet(**small, groups=4, streams=texts)

    old, net = network(text=8).state_dict(), network(**streams)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    torch.save({"state_dict": {f"n.{k}": v for k, v in old.items()}}, tmp_path / "old.ckpt")
    with caplog.at_level("INFO"):
        begin(torch.nn.ModuleDict({"n": net}), tmp_path / "old.ckpt")
    assert f"has other streams; {anew} start anew" in caplog.text
    state = net.state_dict()
    assert any(f".{anew}." in name for name in state)
    for name, x in state.items():
        assert torch.equal(x, before[name] if f".{anew}." in name else old[name]), name


def test_wider_patches_start_as_the_other_on_means_of_pixels(tmp_path, caplog):
    def network(k):
        kinds = {"channels": 8, "multipliers": [1, 2], "attention": [4], "blocks": 1, "groups": 4}
        net = UNet(image_size=8 * k, patch=2 * k, input_skip=k > 1, **kinds).double()
        torch.nn.init.normal_(net.conv_out.weight, std=0.1)
        return net

    torch.manual_seed(0)
    old, net = network(1), network(2)
    torch.nn.init.normal_(old.conv_out.bias)
    torch.save(
        {"state_dict": {f"n.{k}": v for k, v in old.state_dict().items()}}, tmp_path / "old.ckpt"
    )
    with caplog.at_level("INFO"):
        begin(torch.nn.ModuleDict({"n": net}), tmp_path / "old.ckpt")
    assert "has patches of 2; here 4, from means of 2" in caplog.text
    x, t = torch.randn(2, 3, 16, 16, dtype=torch.double), torch.tensor([3, 700])
    small = old(F.avg_pool2d(x, 2), t)
    torch.testing.assert_close(net(x, t), F.interpolate(small, scale_factor=2), rtol=0, atol=1e-12)
    cut = {f"n.{k}": v for k, v in old.state_dict().items() if k != "conv_in.weight"}
    torch.save({"state_dict": cut}, tmp_path / "cut.ckpt")
    with pytest.raises(ValueError, match=r"is of another model: n\.conv_in\.weight is nothing"):
        begin(torch.nn.ModuleDict({"n": net}), tmp_path / "cut.ckpt")
