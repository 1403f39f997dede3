"""Prompts as short as people write them, and what a detailed caption adds to one."""

import random
import re

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
STOP = ". "  # between a short caption and what a detailed one adds
LEAST = 4  # letters of a word that is renamed


def added(prompt: str, text: str) -> str:
    """Returns what a caption says beyond a prompt: what follows it, or else its first sentence.

    A caption of one sentence that does not begin with the prompt is added whole.
    """
    if text.startswith(prompt):
        return text.removeprefix(prompt).removeprefix(STOP.strip()).strip()
    _, stop, more = text.partition(STOP)
    return more if stop else text


def joined(prompt: str, more: str) -> str:
    """Returns the prompt with what is added to it."""
    return f"{prompt.rstrip('. ')}{STOP}{more}" if more and prompt.strip() else prompt


def without_repeats(more: str) -> str:
    """Returns what is added, without items of its list that an earlier item is or ends with."""
    kept = list[str]()
    for item in more.split(", "):
        if not any(f" {before}".endswith(f" {item}") for before in kept):
            kept.append(item)
    return ", ".join(kept)


def shortened(prompt: str, u: float) -> str:
    """Returns the whole prompt in half of all cases, else its last words, 1 … all equally often.

    Args:
        prompt: Of n words.
        u: In [0, 1); it is whole below ½.
    """
    words = prompt.split()
    return prompt if u < 0.5 else " ".join(words[int((2 * u - 1) * len(words)) :])


def renamed(prompt: str, more: str, u: float, v: float) -> tuple[str, str]:
    """Returns both with a word of the prompt made one that is none.

    Its letters are drawn anew among those of the prompt, and it gets one more or one less; so what
    is said of a word that was never seen has to come from the others. Without a word of four
    letters nothing changes.

    Args:
        prompt: The prompt.
        more: What its caption adds.
        u: In [0, 1); decides which word.
        v: In [0, 1); decides its letters.
    """
    words = [x for x in dict.fromkeys(WORD.findall(prompt)) if len(x) >= LEAST]
    if not words:
        return prompt, more
    old, chance = words[int(u * len(words))], random.Random(v)
    letters = [x for x in prompt.lower() if x.isalpha()]
    new = "".join(chance.choices(letters, k=len(old) + chance.choice((-1, 0, 1))))
    pattern = re.compile(rf"(?<![^\W_]){re.escape(old)}(?![^\W_])")
    return pattern.sub(new, prompt), pattern.sub(new, more)
