"""The counter-based generator gives the published numbers, and even ones."""

from __future__ import annotations

import numpy as np
import pytest

from freehold.engine.random import philox, uniforms

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, result):
    words = tuple(np.array([int(word, 16)], np.uint64) for word in counter.split())
    keys = tuple(np.uint64(int(word, 16)) for word in key.split())
    assert [int(word[0]) for word in philox(words, keys)] == [int(w, 16) for w in result.split()]


def test_a_number_depends_on_seed_and_position_alone():
    for seed in (0, 1, 2**32, 2**64 - 1):
        whole = uniforms(seed, 0, 100)
        for start in (0, 1, 63, 64, 99):
            assert uniforms(seed, start, 1)[0] == whole[start]
    assert not np.any(uniforms(1, 0, 100) == uniforms(2, 0, 100))
    assert not np.any(uniforms(1, 0, 100) == uniforms(1 << 32, 0, 100))


def test_numbers_are_spread_evenly_and_stay_below_one():
    numbers = np.concatenate([uniforms(seed, 0, 1000) for seed in range(100)])
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    chi2 = float(((counts - 2000) ** 2 / 2000).sum())
    assert chi2 < 85.35, "above the 99.9 % quantile of chi-square with 49 degrees of freedom"
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.012
