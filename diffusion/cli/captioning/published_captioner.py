"""Captions by any image-to-text model of the Hugging Face Hub, through `transformers`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.cli.captioning.describer import Describer, number
from diffusion.data.reading.decoding import read_whole
from diffusion.networks.captioning.search import Beam, Sampling
from diffusion.networks.text.hugging_face import published

KEY = "hugging_face"
REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
)  # of unfit pictures or texts


class PublishedCaptioner(Describer):
    """A model that `AutoModelForImageTextToText` knows, such as BLIP, GIT, ViT-GPT2 or LLaVA.

    Its own processor prepares whole pictures, and its `generate` writes. A model with a template
    for chats is asked the prompt behind the picture, and its answer is the caption; of any other
    model the prompt begins the caption.

    Args:
        name_or_path: The model's name on the Hub, or a folder.
        search: How captions are chosen: `generate` is told so. Where they are drawn, pictures are
            asked of one by one, each with a seed of its name.
        seed: Of what is drawn.
        n: How many captions of each picture.
        prompt: What a chat model is asked, or how captions begin.
        length: The most tokens to write; by default as the model has it.
        device: Where it computes; the weights keep their type.

    Raises:
        FileNotFoundError: If there is no such model, or no `transformers`.
        ValueError: If a chat model is asked nothing.
    """

    at_once = 8

    def __init__(
        self,
        name_or_path: str,
        search: Beam | Sampling,
        seed: int,
        n: int,
        prompt: str | None = None,
        length: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.name, self.seed, self.prompt = name_or_path, seed, prompt
        self.settings: dict[str, Any] = {"num_return_sequences": n}
        if isinstance(search, Beam):
            self.settings |= {"do_sample": False, "num_beams": search.width}
        else:
            self.settings |= {"do_sample": True, "num_beams": 1, "top_k": 0}
            self.settings |= {"temperature": search.temperature, "top_p": search.top_p}
        if length is not None:
            self.settings["max_new_tokens"] = length
        self.processor = self.tokenizer = published("AutoProcessor", name_or_path, KEY)
        import transformers

        transformers.logging.set_verbosity_error()  # of settings that are ours
        transformers.logging.disable_progress_bar()
        if isinstance(self.processor, transformers.ProcessorMixin):
            self.tokenizer = self.processor.tokenizer
        else:  # older models have two folders' worth of files and nothing that joins them
            self.processor = published("AutoImageProcessor", name_or_path, KEY)
            self.tokenizer = published("AutoTokenizer", name_or_path, KEY)
        self.tokenizer.padding_side = "left"  # a text goes on at its end
        self.chats = bool(getattr(self.processor, "chat_template", None))
        if self.chats and not prompt:
            raise ValueError(f"prompt: {prompt}; expected what to ask {name_or_path}, which chats")
        model = published("AutoModelForImageTextToText", name_or_path, KEY, dtype="auto")
        self.model = model.eval().to(device)

    def read(self, path: Path) -> Tensor:
        """See `Describer`; its size is the file's."""
        return read_whole(path)

    def __call__(self, pictures: Mapping[str, Tensor]) -> list[list[str]]:
        """See `Describer`."""
        if not self.settings["do_sample"]:
            return self._written([*pictures.values()])
        found = list[list[str]]()
        for name, picture in pictures.items():
            with torch.random.fork_rng():
                torch.manual_seed((number(name) + self.seed) % 2**63)
                found += self._written([picture])
        return found

    def _written(self, pictures: Sequence[Tensor]) -> list[list[str]]:
        try:
            inputs = self._inputs(pictures).to(self.model.device, self.model.dtype)
            with torch.no_grad():
                ids = self.model.generate(**inputs, **self.settings)
        except REFUSALS as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"{KEY}: {self.name}; expected a model that writes captions "
                f"{'without' if self.prompt is None else 'with'} a prompt ({reason[:200]})"
            ) from error
        if self.chats and not self.model.config.is_encoder_decoder:  # the question comes first
            ids = ids[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        texts = [" ".join(text.split()) for text in texts]
        n = len(texts) // len(pictures)
        return [texts[i : i + n] for i in range(0, len(texts), n)]

    def _inputs(self, pictures: Sequence[Tensor]) -> Any:
        """Returns what `generate` reads."""
        from PIL import Image

        images: list[Any] = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in pictures]
        if self.prompt is None:
            return self.processor(images=images, return_tensors="pt")
        text, settings = self.prompt, {"padding": True, "return_tensors": "pt"}
        if self.chats:
            content = [{"type": "image"}, {"type": "text", "text": text}]
            chat = [{"role": "user", "content": content}]
            text = self.processor.apply_chat_template(chat, add_generation_prompt=True)
            images = [[image] for image in images]
            if self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token):
                settings["add_special_tokens"] = False
        return self.processor(images=images, text=[text] * len(images), **settings)
