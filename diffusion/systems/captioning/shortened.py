"""Prompts as short as people write them, and whether a text has all their words."""

import random
import re

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
ARTICLES = {"a", "an", "the"}
LEAST = 4  # letters of a word that is renamed


def lost(prompt: str, text: str) -> list[str]:
    """Returns the words of a prompt that a text lacks, articles apart, whatever their case."""
    there = {word.lower() for word in WORD.findall(text)}
    wanted = dict.fromkeys(word.lower() for word in WORD.findall(prompt))
    return [word for word in wanted if word not in there | ARTICLES]


def kept(prompt: str, text: str) -> float:
    """Returns the share of a prompt's words that a text has, articles apart; 1 if it has none."""
    wanted = {word.lower() for word in WORD.findall(prompt)} - ARTICLES
    return 1 - len(lost(prompt, text)) / len(wanted) if wanted else 1.0


def shortened(prompt: str, u: float) -> str:
    """Returns the whole prompt in half of all cases, else its last words, 1 … all equally often.

    Args:
        prompt: Of n words.
        u: In [0, 1); it is whole below ½.
    """
    words = prompt.split()
    return prompt if u < 0.5 else " ".join(words[int((2 * u - 1) * len(words)) :])


def renamed(prompt: str, text: str, u: float, v: float) -> tuple[str, str]:
    """Returns both with a word of the prompt, which the text has too, made one that is none.

    Its letters are drawn anew among those of the prompt, and it gets one more or one less; so what
    comes next cannot be known by heart, and has to be copied. Without such a word nothing changes.

    Args:
        prompt: The prompt.
        text: Its caption.
        u: In [0, 1); decides which word.
        v: In [0, 1); decides its letters.
    """
    there = {*WORD.findall(text)}
    words = [x for x in dict.fromkeys(WORD.findall(prompt)) if x in there and len(x) >= LEAST]
    if not words:
        return prompt, text
    old, chance = words[int(u * len(words))], random.Random(v)
    letters = [x for x in prompt.lower() if x.isalpha()]
    new = "".join(chance.choices(letters, k=len(old) + chance.choice((-1, 0, 1))))
    pattern = re.compile(rf"(?<![^\W_]){re.escape(old)}(?![^\W_])")
    return pattern.sub(new, prompt), pattern.sub(new, text)
