"""Short prompts made long: what is learned, and that no word asked for is lost."""

import json
import random

import pytest
import torch

from diffusion.data import ImageText
from diffusion.networks import PromptNetwork, TextEncoder
from diffusion.networks.conditioning.token_encoder import Encoding
from diffusion.noise import SeededNoise
from diffusion.systems.captioning.prompt_upsampler import PromptUpsampler
from diffusion.systems.captioning.shortened import (
    WORD,
    added,
    joined,
    renamed,
    shortened,
    without_repeats,
)
from diffusion.systems.captioning.writing import nll

PAIRS = [
    (f"a {colour} {thing}", f"{thing} in {colour} paint, drawn")
    for colour in ("red", "green", "blue")
    for thing in ("fox", "house", "clock")
]
STEPS = 150
KINDS = {"animal": ["fox", "wolf", "narwhal"], "building": ["house", "hut", "barn"]}
UNSEEN = ["a narwhal", "a purple narwhal riding a unicycle.", "zebra-crossing", "ein Über-Hund"]


def test_what_is_added_and_joined_is_the_caption():
    text = "a google emoji of a fox. orange picture. showing fur"
    assert added("a google emoji of a fox", text) == "orange picture. showing fur"
    assert added("a twitter emoji of a cat", text) == "orange picture. showing fur"
    assert added("a fox", "one sentence") == "one sentence"
    assert joined("a google emoji of a fox", "orange picture. showing fur") == text
    assert joined("a fox. ", "orange") == "a fox. orange"
    assert joined("a fox", "") == "a fox"
    assert joined("", "orange") == ""
    assert (
        without_repeats("red picture, showing sun, sun, day, sun")
        == "red picture, showing sun, day"
    )


def test_prompts_are_shortened_from_the_front():
    assert shortened("one two three four", 0.49) == "one two three four"
    found = [shortened("one two three four", 0.5 + i / 200) for i in range(100)]
    assert all("one two three four".endswith(x) for x in found)
    assert [sum(x.count(" ") == n for x in found) for n in range(4)] == [25] * 4
    assert shortened("", 0.9) == ""


def test_a_word_is_renamed_in_both():
    prompt, more = "a woman farmer", "brown farmers' picture with a farmer, woman"
    for i in range(50):
        short, long = renamed(prompt, more, i / 50, i / 50)
        words = WORD.findall(short)
        assert (words[1] != "woman") != (words[2] != "farmer")
        assert long.split(", ")[1] == words[1]
        assert long.startswith(f"brown farmers' picture with a {words[2]}")
        assert abs(len(short) - len(prompt)) <= 1
        assert renamed(prompt, more, i / 50, i / 50) == (short, long)
    assert renamed("a cat", "a cat", 0.5, 0.5) == ("a cat", "a cat")


@pytest.fixture(scope="module")
def trained():
    """An upsampler that knows nine pairs by heart."""
    torch.manual_seed(0)
    network = PromptNetwork(width=32, reads=1, depth=1, looks=1, length=48, rows=300)
    module = PromptUpsampler(network)
    network.vocabulary.learn(f" {text}" for pair in PAIRS for text in pair)
    prompts, tokens = (module.read(texts) for texts in zip(*PAIRS))
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=0)
    for _ in range(STEPS):
        loss = nll(network(prompts, tokens), tokens).sum() / (tokens >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


@pytest.mark.slow
def test_what_was_learned_by_heart_comes_back(trained):
    prompts = [prompt for prompt, _ in PAIRS]
    assert trained.rewrite(prompts) == [joined(*pair) for pair in PAIRS]


@pytest.mark.slow
def test_all_words_are_kept_on_concepts_that_were_never_seen(trained):
    for prompt, text in zip(UNSEEN, trained.rewrite(UNSEEN)):
        assert text.startswith(prompt.rstrip("."))
        assert {*WORD.findall(prompt)} <= {*WORD.findall(text)}
        assert len(text) > len(prompt) + 2
    chance = random.Random(0)
    prompts = ["".join(chance.choices("ab c.é🦊", k=chance.randrange(40))) for _ in range(8)]
    for prompt, text in zip(prompts, trained.rewrite(prompts)):
        assert text.startswith(prompt.rstrip(". "))
    long = "a word " * 20
    assert trained.rewrite(["", " ", long]) == ["", " ", long]


@pytest.mark.slow
def test_a_prompt_gets_the_same_in_any_company(trained):
    alone = [trained.rewrite([prompt])[0] for prompt in UNSEEN]
    assert trained.rewrite([*UNSEEN, *(prompt for prompt, _ in PAIRS)])[: len(UNSEEN)] == alone


@pytest.mark.slow
def test_data_without_prompts_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"data\.prompt: none in ImageText; expected the kind of"):
        trained.check(ImageText(root=str(tmp_path), size=8))


@pytest.mark.slow
def test_a_step_is_the_same_in_any_division(trained, monkeypatch):
    """Which prompts are shortened and renamed depends on the step and the sample alone."""
    losses = []
    for rows in (range(9), range(4), range(4, 9)):
        monkeypatch.setattr(trained, "step_noise", lambda *_, rows=rows: SeededNoise(0, rows))
        pairs = [(PAIRS[i][0], joined(*PAIRS[i])) for i in rows]
        batch = {key: [pair[k] for pair in pairs] for k, key in enumerate(("prompt", "text"))}
        losses.append(trained.training_step(batch, 0)["losses"])
    unlike = losses[0] > 0.5  # what is not known by heart
    assert 0 < unlike.sum() < 9
    assert torch.equal(unlike, torch.cat(losses[1:]) > 0.5)


class Meanings(TextEncoder):
    """The vector of a text's last word, which words of one meaning share."""

    values, width, pooled_width, length = ("",), 4, 4, 8

    def read(self, texts):
        kinds = [[text.split()[-1] in words for words in KINDS.values()] for text in texts]
        return {"": torch.tensor(kinds).float().repeat(1, 2)}

    def sizes(self, texts):
        return [1] * len(texts)

    def forward(self, values):
        return Encoding(values[""][:, None], pooled=values[""])


def test_what_an_encoder_knows_of_a_word_is_said_of_one_that_was_never_seen():
    torch.manual_seed(0)
    network = PromptNetwork(Meanings(), width=16, reads=1, depth=1, looks=1, length=16, rows=300)
    module = PromptUpsampler(network)
    pairs = [(f"a {word}", f"a {kind}") for kind, words in KINDS.items() for word in words[:-1]]
    network.vocabulary.learn(f" {text}" for pair in pairs for text in pair)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    for _ in range(40):
        logits, tokens = module.said(*zip(*pairs))
        optimizer.zero_grad()
        nll(logits, tokens).sum().backward()
        optimizer.step()
    unseen = [f"a {words[-1]}" for words in KINDS.values()]
    assert module.eval().rewrite(unseen) == [f"{x}. a {kind}" for x, kind in zip(unseen, KINDS)]


def test_a_run_trains_and_tests(tmp_path):
    import lightning as L
    from PIL import Image

    for i, (prompt, text) in enumerate(PAIRS):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.json").write_text(
            json.dumps({"caption": joined(prompt, text), "short": prompt})
        )
    data = ImageText(root=str(tmp_path), size=8, prompt="short", val_share=0.3, batch_size=4)
    module = PromptUpsampler(PromptNetwork(width=8, length=32, rows=300))
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", default_root_dir=tmp_path / "run", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, inference_mode=False,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    record = json.loads((tmp_path / "run/prompt_upsampler.json").read_text())
    assert {"loss", "perplexity", "token_accuracy"} <= {*record["figures"]}
    assert all(row["rewritten"].startswith(row["prompt"]) for row in record["texts"])
    assert (tmp_path / "run/prompt_upsampler.png").exists()
    assert {row["prompt"] for row in record["texts"]} <= {prompt for prompt, _ in PAIRS}
