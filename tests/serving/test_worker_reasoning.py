"""Reasoning is told from answer whatever the borders at which the text comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.serving.worker.reasoning import ReasoningSplit


def split(pieces, **options):
    splitter = ReasoningSplit(**options)
    parts = [splitter.push(piece) for piece in pieces] + [splitter.finish()]
    return "".join(a for a, _ in parts), "".join(r for _, r in parts)


@pytest.mark.parametrize(
    ("text", "is_open", "answer", "reasoning"),
    [
        ("<think>why</think>so", False, "so", "why"),
        ("<think>\nwhy\n</think>\n\nso", False, "so", "why\n"),
        ("why</think>\n\nso", True, "so", "why"),  # R1: the prompt opened the tag
        ("\nwhy</think>so", True, "so", "why"),
        ("no tag, a < b and <thin air", False, "no tag, a < b and <thin air", ""),
        ("never closed", True, "", "never closed"),
        ("<think>a</thin</think>b", False, "b", "a</thin"),
        ("a<think>b</think>c<think>d</think>e", False, "ace", "bd"),
        ("ends with <thi", False, "ends with <thi", ""),
        ("</think> alone", False, "</think> alone", ""),
        ("<<think>x</think>", False, "<", "x"),
        ("", True, "", ""),
    ],
)
def test_text_is_split_at_the_tags(text, is_open, answer, reasoning):
    for size in range(1, len(text) + 2):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert split(pieces, is_open=is_open) == (answer, reasoning)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "\n", "a"]), max_size=12),
    st.booleans(),
    st.data(),
)
def test_borders_between_pieces_do_not_matter(words, is_open, data):
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, is_open=is_open) == split([text], is_open=is_open)


def test_tags_that_are_special_tokens_turn_by_their_id():
    splitter = ReasoningSplit(open_token_id=7, close_token_id=8)
    got = [splitter.push(text, token_id) for text, token_id in [("", 7), ("why", 1), ("", 8)]]
    assert [*got, splitter.push("\nso", 2)] == [("", ""), ("", "why"), ("", ""), ("so", "")]
