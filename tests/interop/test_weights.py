"""What files of weights may hold, and what the package's shapes and tables tell."""

import zipfile

import pytest
import torch
from safetensors.torch import save_file
from seeded import weights as seeded

from diffusion.common.validate import first_few
from diffusion.common.weights import read, tensors
from diffusion.interop import layout, lucidrains, openai
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


def zipped(path, compression, change=lambda data: data):
    """Writes a torch file's records anew."""
    with zipfile.ZipFile(path) as old:
        records = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in records.items():
            new.writestr(name, change(data))


def test_compressed_records_are_not_taken_for_numbers(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pt")
    zipped(tmp_path / "x.pt", zipfile.ZIP_STORED)
    assert torch.equal(read(tmp_path / "x.pt")["a"], torch.zeros(1000))
    zipped(tmp_path / "x.pt", zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"expected tensors .* its records are compressed"):
        read(tmp_path / "x.pt")


def test_a_flipped_bit_is_found_wherever_it_lies(tmp_path):
    path = tmp_path / "x.pt"
    values, refused = torch.randn(1000), 0
    torch.save({"a": values, "b": "text"}, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 211):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read(path)["a"].clone()
        except ValueError as error:
            message, found = str(error), values  # mapped: it goes with the file
            refused += "expected tensors and plain values only" in message
        assert torch.equal(found, values)  # the rest lies between records
    assert refused > 20


def test_more_than_the_file_holds_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(2**22)}, tmp_path / "x.pt")
    zipped(tmp_path / "x.pt", zipfile.ZIP_LZMA)
    assert (tmp_path / "x.pt").stat().st_size < 2**14
    with pytest.raises(ValueError, match="compressed"):
        read(tmp_path / "x.pt")


STRANGE = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "rows": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "expanded": lambda: torch.zeros(1).expand(10**6, 10**6),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_refused(tmp_path, kind):
    torch.save({"a": STRANGE[kind]()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="expected tensors and plain values only, "):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_finite(tmp_path, name, value, dtype):
    values = {"a": torch.ones(3), "b": torch.tensor([1.0, value]).to(dtype)}
    save_file(values, tmp_path / name) if "safe" in name else torch.save(values, tmp_path / name)
    with pytest.raises(ValueError, match=r"expected finite weights, b has NaN or inf"):
        tensors(read(tmp_path / name), tmp_path / name)


def test_halves_become_floats_and_the_rest_stays(tmp_path):
    found = tensors({"a": torch.ones(2).half(), "b": torch.arange(2)}, tmp_path)
    assert found["a"].dtype == torch.float32
    assert found["b"].dtype == torch.int64
    for content in ([], {}, None):
        with pytest.raises(ValueError, match="expected named tensors, it holds none"):
            tensors(content, tmp_path)


def test_long_lists_are_cut():
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcde")) == "a, b, c and 2 more"


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
    return {named[k][0]: v for k, v in seeded(shapes).items()}


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
        layout.imported_weights(network, lucidrains.names(network), values)
