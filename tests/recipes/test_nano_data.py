"""The generator of freehold-nano: the same on every run, and true to its passages."""

import random

import pytest
from recipes.nano import data, words
from recipes.nano.passages import ABSENT, grounded_chat


def test_same_seed_and_index_give_the_same_chat() -> None:
    first = [data.chat(3, i) for i in range(200)]
    again = [data.chat(3, i) for i in reversed(range(200))][::-1]
    assert first == again
    assert first != [data.chat(4, i) for i in range(200)]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_answer_quotes_the_passage_it_cites(lang: str) -> None:
    for seed in range(200):
        chat = grounded_chat(random.Random(seed), lang, 3, False, refuse=False, system=False)
        told = chat[0]["content"].split("\n")
        said = chat[1]["content"]
        quote = said.split("：" if lang == "zh" else ": ", 1)[1].rsplit(" [", 1)[0]
        number = said.rsplit("[", 1)[1].removesuffix("]")
        cited = next(line for line in told if line.startswith(f"[{number}]"))
        assert quote in cited


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_refused_question_is_none_that_the_facts_answer(lang: str) -> None:
    for seed in range(200):
        chat = grounded_chat(random.Random(seed), lang, 3, False, refuse=True, system=False)
        answered = grounded_chat(random.Random(seed), lang, 3, False, refuse=False, system=False)
        assert chat[1]["content"] == ABSENT[lang]
        assert chat[0]["content"] != answered[0]["content"]


def test_held_out_names_never_meet_training_names() -> None:
    trained = {words.invented_word(random.Random(i), held_out=False) for i in range(500)}
    kept = {words.invented_word(random.Random(i), held_out=True) for i in range(500)}
    assert not trained & kept
    assert all(words.is_held_out(w) for w in kept)
