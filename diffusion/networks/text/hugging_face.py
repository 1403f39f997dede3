"""Text encoders of the `transformers` library: T5's encoder and CLIP's text model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.networks.text.frozen_text import FrozenText, Pretrained

CLASSES = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}


class Outputs(nn.Module):
    """A model of `transformers` that gives what `Pretrained` asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the last states (B, N, D) and the pooled output (B, D) of ids (B, N)."""
        out = self.model(input_ids=ids, attention_mask=mask.long())
        return out.last_hidden_state, out.get("pooler_output")


class HuggingFace(FrozenText):
    """Frozen states of a T5 encoder (Imagen, Saharia et al. 2022, 2.1) or of CLIP's text model.

    The states are the last layer's after its LayerNorm. The pooled vector is, for T5, the mean of
    the states; for CLIP the state of the end token, `pooler_output`, which is not yet projected
    into the space that images share. Unlike in Stable Diffusion, nothing behind the end is read.
    Needs the package `transformers`.

    Args:
        name_or_path: The model's name on the Hugging Face Hub, or a folder.
        length: L, the most tokens, the end included; CLIP has learned 77 positions.
        revision: The commit, tag or branch on the Hub.

    Raises:
        FileNotFoundError: If there is no such model, or no `transformers`.
        ValueError: If the model is of another kind, or `length` out of range.
    """

    def __init__(self, name_or_path: str, length: int = 77, revision: str | None = None) -> None:
        super().__init__(length)
        self.name_or_path, self.revision = name_or_path, revision
        self._config = self._published("AutoConfig")
        kind = self._config.model_type
        if kind not in CLASSES:
            raise ValueError(
                f"HuggingFace.name_or_path: {name_or_path!r} is of type {kind!r}; "
                f"expected one of {', '.join(CLASSES)}"
            )
        numbers = self._config.text_config if kind == "clip" else self._config
        most = numbers.to_dict().get("max_position_embeddings", length)
        if length > most:
            raise ValueError(f"HuggingFace.length: {length}; expected at most {most}")
        self.width = self.pooled_width = numbers.hidden_size

    def load(self) -> Pretrained:
        """See `FrozenText`."""
        with torch.random.fork_rng(devices=[]):  # it draws weights, and then replaces them
            model = self._published(CLASSES[self._config.model_type], dtype=torch.float32)
        tokenizer = self._published("AutoTokenizer")

        def tokenize(texts: Sequence[str]) -> list[list[int]]:
            return tokenizer(list(texts), verbose=False)["input_ids"]

        return Pretrained(Outputs(model.eval().requires_grad_(False)), tokenize)

    def digest(self) -> str:
        """Returns the commit of a model of the Hub, or a hash of the files of a folder."""
        folder = Path(self.name_or_path).expanduser()
        if not folder.is_dir():
            return f"{self.name_or_path}@{self._config._commit_hash}"
        sha = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            sha.update(f"{path.name} {content} ".encode())
        return sha.hexdigest()

    def _published(self, name: str, **settings: Any) -> Any:
        key = "HuggingFace.name_or_path"
        return published(name, self.name_or_path, key, revision=self.revision, **settings)


def published(kind: str, name_or_path: str, key: str, **settings: Any) -> Any:
    """Returns what a class of `transformers` makes of a model's files; their own code is not run.

    Args:
        kind: The class, such as "AutoTokenizer".
        name_or_path: The model's name on the Hugging Face Hub, or a folder.
        key: What errors call it.
        settings: Of the class's `from_pretrained`.

    Raises:
        FileNotFoundError: If there is no such model, or no `transformers`.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise FileNotFoundError(
            f"{key}: {name_or_path!r}; expected the package transformers, which is not installed; "
            "pip install 'diffusion-template[hugging-face]'"
        ) from None
    try:
        made = getattr(transformers, kind)
        return made.from_pretrained(name_or_path, trust_remote_code=False, **settings)
    except (OSError, ValueError, ImportError) as error:  # the last: of what a tokenizer needs
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{key}: {name_or_path!r}; expected a model of the Hub or a folder with one "
            f"({reason[:200]})"
        ) from None
