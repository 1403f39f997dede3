"""`diffusion caption --hugging_face`, by tiny models with random weights."""

import json
import sys

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

transformers = pytest.importorskip("transformers")

WORDS = ["<pad>", "<start>", "<end>", "<image>", "a", "red", "cat", "dog", "over", "describe"]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4}
TEXT = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 40}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {**SIZES, "image_size": 8, "patch_size": 4, "projection_dim": 16}
TEMPLATE = """<start>{% for turn in messages %}{% for part in turn.content %}
{% if part.type == "image" %}<image> {% else %}{{ part.text }} {% endif %}
{% endfor %}{% endfor %}dog"""


def tokenizer():
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="over"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    both = [("<start>", 1), ("<end>", 2)]
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=both
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<pad>"}
    extra = {"extra_special_tokens": {"image_token": "<image>"}}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special, **extra)


def blip(folder):
    text = {**TEXT, "encoder_hidden_size": 16, "sep_token_id": 2, "is_decoder": True}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION)
    images = transformers.BlipImageProcessor(size={"height": 8, "width": 8})
    transformers.BlipProcessor(images, tokenizer()).save_pretrained(folder)
    return transformers.BlipForConditionalGeneration(config)


def vit_gpt2(folder):
    vision = transformers.ViTConfig(**{k: v for k, v in VISION.items() if k != "projection_dim"})
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40, "vocab_size": len(WORDS)}
    text = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    kind = transformers.VisionEncoderDecoderConfig
    config = kind.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return transformers.VisionEncoderDecoderModel(config)


def llava(folder):
    text, vision = transformers.LlamaConfig(**TEXT), transformers.CLIPVisionConfig(**VISION)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=3, vision_feature_layer=-1
    )
    size = {"height": 8, "width": 8}
    images = transformers.CLIPImageProcessor(size=size, crop_size=size)
    given = {"patch_size": 4, "vision_feature_select_strategy": "default"}
    given |= {"num_additional_image_tokens": 1, "chat_template": TEMPLATE}
    transformers.LlavaProcessor(images, tokenizer(), **given).save_pretrained(folder)
    return transformers.LlavaForConditionalGeneration(config)


MAKES = {"blip": blip, "vit_gpt2": vit_gpt2, "llava": llava}
NAMES = ("a.png", "b.png", "sub/c.png")


@pytest.fixture
def pictures(run):
    """Three pictures of different sizes, one of them in a subfolder."""
    (run.folder / "pictures/sub").mkdir(parents=True)
    made = {}
    for i, name in enumerate(NAMES):
        noise = torch.randint(256, (9 + i, 12, 3), generator=torch.Generator().manual_seed(i))
        made[name] = Image.fromarray(noise.to(torch.uint8).numpy())
        made[name].save(run.folder / "pictures" / name)
    return made


@pytest.fixture
def saved(run):
    """Writes a model to a folder of its name, and returns it."""

    def save(name):
        model = MAKES[name](run.folder / name)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(run.folder / name)
        return model.eval()

    return save


def written(run):
    files = [(run.folder / "pictures" / name).with_suffix(".txt") for name in NAMES]
    return [file.read_text().rstrip("\n") for file in files]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("blip", None), ("blip", "a red"), ("vit_gpt2", None), ("llava", "describe")],
)
def test_captions_are_those_that_transformers_generates(run, saved, pictures, name, prompt):
    model, folder, length = saved(name), run.folder / name, 8
    flags = ["--hugging_face", name, "--folder", "pictures", "--length", length, "--beam", 2]
    run("caption", *flags, *(["--prompt", prompt] if prompt else []))
    expected = list[str]()
    words, cut = transformers.AutoTokenizer.from_pretrained(folder), 0
    settings = {"num_beams": 2, "max_new_tokens": length}
    for picture in pictures.values():
        if name == "vit_gpt2":
            reader = transformers.ViTImageProcessor.from_pretrained(folder)
        else:
            reader = transformers.AutoProcessor.from_pretrained(folder)
        texts = {} if prompt is None else {"text": prompt}
        if name == "llava":
            content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
            inputs = reader.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            )  # fmt: skip
            cut = inputs["input_ids"].shape[1]
            assert words.decode(inputs["input_ids"][0]).split() == [
                "<start>", *["<image>"] * 4, "describe", "dog",
            ]  # fmt: skip
        else:
            inputs = reader(picture, return_tensors="pt", **texts)
        ids = model.generate(**inputs, **settings)[0, cut:]
        expected.append(words.decode(ids, skip_special_tokens=True))
    assert len({*expected}) > 1
    assert written(run) == expected
    if name == "blip" and prompt:
        assert all(text.startswith(prompt) for text in expected)


def test_what_is_drawn_depends_on_the_name_alone(run, saved, pictures):
    saved("vit_gpt2")
    flags = ["--hugging_face", "vit_gpt2", "--folder", "pictures", "--format", "json"]
    flags += ["--n", 4, "--temperature", 2, "--top_p", 1, "--length", 6]
    before = torch.get_rng_state()
    run("caption", *flags)
    assert torch.equal(torch.get_rng_state(), before)
    files = [(run.folder / "pictures" / name).with_suffix(".json") for name in NAMES]
    found = [file.read_text() for file in files]
    assert len({*json.loads(found[0])["synthetic"]}) > 1
    files[1].unlink()
    run("caption", *flags)
    assert [file.read_text() for file in files] == found
    files[1].unlink()
    run("caption", *flags, "--seed", 1)
    assert files[1].read_text() != found[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ckpt_path", "x.ckpt"], "ckpt_path: x.ckpt, hugging_face: llava; expected one of them"),
        (["--spell"], "spell: True; expected none with --hugging_face"),
        (["--length", "0"], "caption.length: 0; expected at least 1"),
        ([], "prompt: None; expected what to ask llava, which chats"),
    ],
)
def test_wrong_flags_are_one_line(refused, saved, pictures, flags, words):
    saved("llava")
    assert words in refused("caption", "--hugging_face", "llava", "--folder", "pictures", *flags)


def test_what_is_no_model_of_pictures_is_one_line(refused, saved, pictures, run, monkeypatch):
    given = ["--folder", "pictures", "--prompt", "a"]
    line = refused("caption", "--ckpt_path", "x.ckpt", *given)
    assert "prompt: a; expected none with --ckpt_path" in line
    text = "hugging_face: {!r}; expected a model of the Hub or a folder with one"
    nowhere = str(run.folder / "nowhere")
    line = refused("caption", "--hugging_face", nowhere, "--folder", "pictures")
    assert text.format(nowhere) in line
    transformers.GPT2Config().save_pretrained(run.folder / "gpt2")
    tokenizer().save_pretrained(run.folder / "gpt2")
    line = refused("caption", "--hugging_face", "gpt2", "--folder", "pictures")
    assert text.format("gpt2") in line
    saved("vit_gpt2")
    line = refused("caption", "--hugging_face", "vit_gpt2", *given)
    assert "hugging_face: vit_gpt2; expected a model that writes captions with a prompt" in line
    monkeypatch.setitem(sys.modules, "transformers", None)
    line = refused("caption", "--hugging_face", "vit_gpt2", *given)
    assert "transformers, which is not installed; pip install" in line
