"""What files of weights may hold, and what the package's shapes and tables tell."""

import pytest
import torch
from safetensors.torch import save_file
from seeded import weights as seeded

from diffusion.interop import layout, lucidrains, openai
from diffusion.interop.weights import listed, read, tensors
from diffusion.networks import LinearUNet, UNet
from diffusion.process import Cosine, Sigmoid


def test_safetensors_and_both_kinds_of_torch_files_are_read(tmp_path):
    values = {"a": torch.randn(3), "b": torch.arange(2)}
    save_file(values, tmp_path / "x.safetensors")
    torch.save(values, tmp_path / "x.pt")
    torch.save(values, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    for name in ("x.safetensors", "x.pt", "x.bin"):
        found = read(tmp_path / name)
        assert torch.equal(found["a"], values["a"])
        assert torch.equal(found["b"], values["b"])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00."[:4]])
def test_a_broken_file_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"weights: .*{name}; expected tensors .* cut short"):
        read(tmp_path / name)


def test_halves_become_floats_and_the_rest_stays(tmp_path):
    found = tensors({"a": torch.ones(2).half(), "b": torch.arange(2)}, tmp_path)
    assert found["a"].dtype == torch.float32
    assert found["b"].dtype == torch.int64
    for content in ([], {}, None):
        with pytest.raises(ValueError, match="expected named tensors, it holds none"):
            tensors(content, tmp_path)


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcde")) == "a, b, c and 2 more"


def test_openais_norms_have_32_groups():
    narrow = UNet(8, channels=32, multipliers=(1,), attention=(), blocks=1, family="openai")
    with pytest.raises(ValueError, match=r"norm_in has 16 here .*; expected 32"):
        openai.names(narrow)


ARGUMENTS = {
    "in_channels": 1,
    "out_channels": 1,
    "channels": 8,
    "first": 4,
    "multipliers": [1, 2, 3],
    "heads": [2, 3, 4],
    "head_widths": [4, 8, 2],
    "full": [True, False, True],
    "learned": 3,
}


def package_weights(**changes):
    network = LinearUNet(**{**ARGUMENTS, **changes})
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    named = lucidrains.names(network)
    return {named[k]: v for k, v in seeded(shapes).items()}


def test_the_sizes_of_a_network_follow_from_its_shapes():
    assert lucidrains.sizes(package_weights()) == ARGUMENTS
    full = {"full": [False, False, False], "learned": 5}
    assert lucidrains.sizes(package_weights(**full)) == {**ARGUMENTS, **full}


def test_networks_with_other_inputs_are_refused():
    conditioned = package_weights(in_channels=2)
    with pytest.raises(ValueError, match="self_condition"):
        lucidrains.sizes(conditioned)
    random = {**package_weights(), "time_mlp.0.weights": torch.zeros(8)}
    with pytest.raises(ValueError, match="frequencies; expected sinusoids"):
        lucidrains.sizes(random)
    older = package_weights()
    older["downs.0.2.fn.fn.to_qkv.weight"] = older.pop("downs.0.2.mem_kv")
    with pytest.raises(ValueError, match=r"mem_kv is missing; expected .* 2.0 or later"):
        lucidrains.sizes(older)


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("name", ["Eps", "X0", "V"])
@pytest.mark.parametrize("process", [Sigmoid(1000), Cosine(100)], ids=lambda p: type(p).__name__)
def test_the_weight_of_the_loss_tells_the_parameterisation(process, name, capped):
    bar = process.alpha[1:] ** 2
    snr = bar / (1 - bar)
    most = snr.clamp(max=5) if capped else snr
    weight = {"Eps": most / snr, "X0": most, "V": most / (snr + 1)}[name]
    tables = {"loss_weight": weight.float(), "alphas_cumprod": bar.float()}
    assert lucidrains.parameterization(tables) == name


def test_a_tensor_too_many_or_too_few_is_named():
    network = LinearUNet(**ARGUMENTS)
    values = package_weights()
    del values["final_conv.bias"]
    values["more"] = torch.zeros(1)
    wrong = r"not accounted for: more; missing: final_conv.bias"
    with pytest.raises(ValueError, match=wrong):
        layout.ours(network, lucidrains.names(network), values)
