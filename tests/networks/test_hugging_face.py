import sys

import pytest
import torch
import transformers

from diffusion.networks import HuggingFace

WORDS = ["<pad>", "<end>", "<unk>", "a", "red", "cat", "dog", "over"]
TEXTS = ["a red cat", "", "a dog over a red dog over a red cat over a red dog"]
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "projection_dim": 8,
    "eos_token_id": 1,
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 4}
VISION |= {"num_attention_heads": 2, "patch_size": 2}


def t5():
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(WORDS), **sizes))


def text_model():
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))


def clip():
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)
    return transformers.CLIPModel(config)


def save(model, folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<end>", 1)]
    made.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=ends)
    names = {"eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("make", [t5, text_model, clip])
def test_states_and_pooled_output_are_those_of_transformers(tmp_path, make):
    model = make().eval()
    folder = save(model, tmp_path)
    before = torch.get_rng_state()
    encoder = HuggingFace(folder, 10)
    values = encoder.read(TEXTS)
    assert torch.equal(torch.get_rng_state(), before)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(
        TEXTS, truncation=True, max_length=10, padding="max_length", return_tensors="pt"
    )
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    mask = batch["attention_mask"].bool()
    assert mask.sum(1).tolist() == [4, 1, 10]
    with torch.no_grad():
        expected = (model.text_model if make is clip else model)(**inputs)
    states = expected.last_hidden_state * mask[..., None]
    torch.testing.assert_close(values[""], states, atol=1e-3, rtol=2e-3)
    assert torch.equal(values["_mask"], mask)
    pooled = states.sum(1) / mask.sum(1, keepdim=True)  # T5
    if make is not t5:
        pooled = states[torch.arange(3), mask.sum(1) - 1]
        torch.testing.assert_close(pooled, expected.pooler_output)
    torch.testing.assert_close(values["_pooled"], pooled, atol=1e-3, rtol=2e-3)
    assert (encoder.width, encoder.pooled_width) == (16, 16)
    assert list(encoder.parameters()) == []


def test_a_file_belongs_to_the_weights(tmp_path):
    cache, folder = tmp_path / "cache", save(t5(), tmp_path / "model")
    computed = HuggingFace(folder, 8).read(TEXTS)
    for _ in range(2):
        encoder = HuggingFace(folder, 8)
        encoder.remember(TEXTS, cache, progress=False)
    assert len(list(cache.iterdir())) == 1
    torch.testing.assert_close(encoder.read(TEXTS), computed, atol=0, rtol=0)
    save(t5(), tmp_path / "model")
    HuggingFace(folder, 8).remember(TEXTS, cache, progress=False)
    assert len(list(cache.iterdir())) == 2


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path):
    encoder = HuggingFace(save(t5(), tmp_path), 8)
    encoder.name_or_path, encoder._config._commit_hash = "somebody/t5", "abc"
    assert encoder.digest() == "somebody/t5@abc"


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"HuggingFace.name_or_path: .*nothing") as error:
        HuggingFace(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


def test_a_model_of_another_kind(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is of type 'bert'; expected one of t5, clip"):
        HuggingFace(str(tmp_path))


def test_more_positions_than_it_has(tmp_path):
    folder = save(text_model(), tmp_path)
    with pytest.raises(ValueError, match=r"HuggingFace.length: 13; expected at most 12"):
        HuggingFace(folder, 13)


def test_transformers_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        FileNotFoundError, match="transformers, which is not installed; pip install"
    ):
        HuggingFace(str(tmp_path))
