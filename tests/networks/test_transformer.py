import hashlib

import pytest
import torch
from torch import nn

from diffusion.networks import TextTransformer
from diffusion.networks.text.hashed_words import words
from diffusion.networks.transformer import Block, Transformer

TEXTS = ["A red-ish cat, please!", "", "cat", "one two three four five six seven eight nine"]


@pytest.fixture
def encoder():
    return TextTransformer(width=16, depth=2, heads=4, length=8, rows=50)


def test_a_block_is_torchs():
    ours = Block(24, 4)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerEncoderLayer(
        24, 4, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {"norm_attention": "norm1", "norm_mlp": "norm2", "mlp_in": "linear1"}
    names |= {"mlp_out": "linear2", "out": "self_attn.out_proj"}
    state = {f"self_attn.in_proj_{k}": v for k, v in ours.qkv.state_dict().items()}
    for mine, other in names.items():
        values = ours.get_submodule(mine).state_dict()
        state |= {f"{other}.{k}": v for k, v in values.items()}
    theirs.load_state_dict(state)
    h, known = torch.randn(3, 7, 24), torch.arange(7) < torch.tensor([[7], [2], [5]])
    torch.testing.assert_close(ours(h), theirs(h), atol=1e-5, rtol=1e-5)
    expected = theirs(h, src_key_padding_mask=~known)
    torch.testing.assert_close(ours(h, known[:, None, None]), expected, atol=1e-5, rtol=1e-5)


def test_weights_start_as_in_gpt2():
    blocks = Transformer(width=128, depth=8, heads=4).blocks
    for block in blocks:
        for layer, std in {"qkv": 0.02, "mlp_in": 0.02, "out": 0.005, "mlp_out": 0.005}.items():
            assert block.get_submodule(layer).weight.std().item() == pytest.approx(std, rel=0.05)
            assert block.get_submodule(layer).bias.count_nonzero() == 0
        assert (block.norm_mlp.weight == 1).all()


def test_words_and_signs():
    assert words("A red-ish cat,\n2 Ärger!") == "a red - ish cat , 2 ärger !".split()


def test_rows_are_hashes_of_words(encoder):
    ids = encoder.read(["Cat dog", "dog cat"])[""]
    rows = [1 + int(hashlib.sha256(word).hexdigest()[:16], 16) % 49 for word in (b"cat", b"dog")]
    assert ids[:, :3].tolist() == [[*rows, 0], [*rows[::-1], 0]]
    many = encoder.read([str(n) for n in range(2000)])[""][:, 0]
    assert (many.min(), many.max()) == (1, 49)  # row 0 is the end's


def test_end_and_length(encoder):
    values = encoder.read(TEXTS)
    ids, last = values[""], values["_last"]
    assert last.tolist() == [7, 0, 1, 7]
    assert (ids == 0).nonzero()[:, 1].tolist() == last.tolist()
    behind = torch.arange(8) > last[:, None]
    assert torch.equal(ids < 0, behind)


def test_padding_has_embeddings_of_its_own(encoder):
    inputs = []
    encoder.transformer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    values = encoder.read(TEXTS)
    encoder(values)
    ids, padding = values[""], values[""] < 0
    h = inputs[0]
    assert torch.equal(h[padding], encoder.padding.expand(4, -1, -1)[padding])
    expected = (
        encoder.embedding.weight[ids[~padding]] + encoder.position.expand(4, -1, -1)[~padding]
    )
    assert torch.equal(h[~padding], expected)
    encoder(encoder.read(["cat"])).states[0, 0].sum().backward()
    assert (encoder.padding.grad.abs().sum(1) > 0).tolist() == [False] * 2 + [True] * 6  # is read
    used = encoder.embedding.weight.grad.abs().sum(1) > 0
    assert set(used.nonzero().flatten().tolist()) == {0, ids[2, 0].item()}


def test_pooled_is_the_state_of_the_end(encoder):
    values = encoder.read(TEXTS)
    tokens = encoder(values)
    assert tokens.states.shape == (4, 8, 16)
    assert tokens.mask is None
    for row, last in enumerate([7, 0, 1, 7]):
        assert torch.equal(tokens.pooled[row], tokens.states[row, last])
        alone = encoder(encoder.read(TEXTS[row : row + 1]))
        torch.testing.assert_close(alone.states[0], tokens.states[row], atol=1e-5, rtol=1e-5)


def test_null_is_the_empty_string(encoder):
    assert encoder.null[""].tolist() == [0] + [-1] * 7
    assert encoder.null["_last"].item() == 0
    assert set(encoder.null) == set(encoder.values)


@pytest.mark.parametrize("settings", [{"length": 1}, {"rows": 1}, {"heads": 3}])
def test_sizes_out_of_range(settings):
    (key,) = settings
    with pytest.raises(ValueError, match=f"{key}: {settings[key]}; expected"):
        TextTransformer(**settings)


def test_a_byte_order_mark_and_the_form_of_letters_change_nothing(encoder):
    composed, decomposed = "Caf\u00e9 \uac00", "\ufeffCafe\u0301 \u1100\u1161"
    assert words(decomposed) == words(composed) == ["caf\u00e9", "\uac00"]
    assert torch.equal(encoder.read([composed])[""], encoder.read([decomposed])[""])


def test_sizes_count_the_end_and_what_is_cut(encoder):
    assert encoder.sizes(TEXTS) == [9, 1, 2, 10]
