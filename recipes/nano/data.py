"""The generator: a seed and an index give one chat, the same on every machine.

Chats are grounded questions, small talk, and repeating. Knows nothing of tokens or training.
Read `passages.py` for the grounded kind and `talk.py` for the rest.
"""

import random

from recipes.nano import talk, words
from recipes.nano.passages import Message, grounded_chat


def random_phrase(rng: random.Random, lang: str, held_out: bool) -> str:
    """A few words in no order that means anything: only copying can predict them."""
    count = rng.randint(2, 30)
    if lang == "zh":
        return words.invented_hanzi(rng, count, held_out)
    drawn = [
        words.invented_word(rng, held_out) if rng.random() < 0.3 else rng.choice(words.EVERYDAY)
        for _ in range(count)
    ]
    return " ".join(drawn)


def repeat_chat(rng: random.Random, lang: str, held_out: bool) -> list[Message]:
    """The user asks for words to be repeated; teaches copying early."""
    phrase = random_phrase(rng, lang, held_out)
    asked = "Repeat after me: " if lang == "en" else "请跟我说："
    return [
        {"role": "user", "content": asked + phrase},
        {"role": "assistant", "content": ("Sure: " if lang == "en" else "好的：") + phrase},
    ]


def chat(
    seed: int, index: int, ease: float = 0.0, held_out: bool = False, drill: float = 0.03
) -> list[Message]:
    """Chat number `index` of the stream `seed`.

    `ease` 1 gives short chats, 0 the full range; `drill` is the share that only repeats words.
    """
    rng = random.Random(f"{seed}/{index}")
    lang = rng.choice(["en", "zh"])
    kind = rng.random()
    if kind < 0.10:
        return talk.small_talk(rng, lang)
    if kind < 0.10 + drill:
        return repeat_chat(rng, lang, held_out)
    if rng.random() < ease:
        count = rng.randint(1, 2)
    else:
        count = rng.choice([1, 2, 3, 3, 3, 4, 4, 5, 6])
    return grounded_chat(
        rng, lang, count, held_out, refuse=rng.random() < 0.2, system=rng.random() < 0.2
    )
