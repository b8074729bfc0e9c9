"""The index finds what a search through all tokens finds."""

from __future__ import annotations

import random

import pytest

from freehold.engine.lookup import Lookup


def searched(tokens, count):
    """Where the last pair, or else the last token, stood before (the latest time but now), and
    what came after it; in a text that goes on with the guess."""
    for size in (2, 1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                text = list(tokens)
                for i in range(count):
                    text.append(text[end + i])
                return text[len(tokens) :]
    return []


@pytest.mark.parametrize("num_kinds", [3, 20, 400])
def test_a_first_guess_is_what_a_search_finds(num_kinds):
    rng = random.Random(num_kinds)
    for length in range(1, 120):
        # After the 1000 no older match goes on
        ends = [rng.randrange(num_kinds) for _ in range(2)]
        tokens = [rng.randrange(num_kinds) for _ in range(length)] + [1000, *ends]
        assert Lookup(tokens).drafts(6) == searched(tokens, 6)


def test_a_match_that_goes_on_is_kept_to_the_end_of_its_source():
    prompt = [*range(100, 130), 7, 8, *range(200, 210), 110, 111, 99]
    lookup = Lookup(prompt)
    for token_id in range(100, 128):
        lookup.append(token_id)
        if token_id > 101:
            assert lookup.drafts(2) == [token_id + 1, (token_id + 2) if token_id < 128 else 7]


def test_a_repeating_text_is_guessed_round_and_round():
    assert Lookup([5, 6, 7, 5, 6, 7]).drafts(7) == [5, 6, 7, 5, 6, 7, 5]
    assert Lookup([9, 9]).drafts(3) == [9, 9, 9]


def test_nothing_is_guessed_without_a_match():
    for tokens in ([], [1], [1, 2, 3]):
        assert Lookup(tokens).drafts(4) == []
        assert Lookup(tokens).rate(0) == 0.0


def test_rates_follow_the_record():
    lookup = Lookup([1, 2, 3, 4] * 20)
    before = [lookup.rate(index) for index in range(40)]
    assert before == sorted(before), "the longer the match, the likelier"
    for token_id in [1, 2, 3, 4] * 20:
        lookup.append(token_id)
    assert lookup.rate(0) > 0.99
    for token_id in range(500, 560):  # each is one the index has a wrong guess for
        lookup.append(2)
        lookup.append(token_id)
    lookup.append(2)
    assert lookup.drafts(1) == [559]
    assert lookup.rate(0) < 0.01
