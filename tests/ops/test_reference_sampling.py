"""Choosing a token: the truth's sampler and logprobs against their definition in `Ops`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.ops.reference import ReferenceOps

OPS = ReferenceOps()
RNG = np.random.default_rng(0)


def sample(logits, uniform, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> int:
    return int(
        OPS.sample(
            np.array([logits], np.float32),
            np.array([temperature], np.float32),
            np.array([top_k], np.int32),
            np.array([top_p], np.float32),
            np.array([min_p], np.float32),
            np.array([uniform]),
        )[0]
    )


def reachable(logits, **settings) -> set[int]:
    return {sample(logits, u, **settings) for u in np.linspace(0, 0.9999, 400)}


def test_temperature_zero_is_the_lowest_id_of_the_greatest():
    assert sample([1.0, 3.0, 3.0, 2.0], 0.99, temperature=0.0) == 1


def test_uniforms_give_each_token_its_probability():
    logits = np.log([0.1, 0.2, 0.3, 0.4])
    uniforms = (np.arange(1000) + 0.5) / 1000
    counts = np.bincount([sample(logits, u) for u in uniforms], minlength=4)
    assert counts.tolist() == [100, 200, 300, 400]


def test_temperature_sharpens():
    logits = np.log([0.2, 0.8])
    uniforms = (np.arange(1000) + 0.5) / 1000
    hot = sum(sample(logits, u, temperature=2.0) for u in uniforms)
    assert hot / 1000 == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5), abs=2e-3)


def test_tokens_are_ordered_by_probability_then_id():
    logits = np.log([0.25, 0.5, 0.25])
    assert [sample(logits, u) for u in (0.0, 0.49, 0.51, 0.74, 0.76, 0.999)] == [1, 1, 0, 0, 2, 2]


def test_top_k_keeps_k_and_gives_ties_to_the_lower_id():
    assert reachable([1.0, 2.0, 2.0, 2.0, 0.0], top_k=2) == {1, 2}
    assert reachable([1.0, 2.0], top_k=50) == {0, 1}


def test_min_p_keeps_what_reaches_its_part_of_the_greatest():
    logits = np.log([0.5, 0.26, 0.24])
    assert reachable(logits, min_p=0.5) == {0, 1}
    assert reachable(logits, min_p=1.0) == {0}


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert reachable(logits, top_p=0.45) == {0}
    assert reachable(logits, top_p=0.55) == {0, 1}
    assert reachable(logits, top_p=0.85) == {0, 1, 2}
    assert reachable(logits, top_p=1.0) == {0, 1, 2, 3}
    assert reachable(logits, top_p=1e-9) == {0}


def test_top_p_is_of_the_mass_that_top_k_kept():
    logits = np.log([0.4, 0.2, 0.2, 0.2])
    assert reachable(logits, top_k=2, top_p=0.6) == {0}  # 0.4 of 0.6 is two thirds
    assert reachable(logits, top_p=0.6 - 1e-6) == {0, 1}


def test_masked_tokens_are_never_drawn():
    logits = [-np.inf, 0.0, -np.inf, 0.0]
    assert reachable(logits) == {1, 3}
    assert sample(logits, np.nextafter(1.0, 0.0)) in (1, 3)


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.015625, 5, width=32),
    st.integers(0, 40),
    st.floats(0.015625, 1, width=32),
    st.floats(0, 1, width=32),
)
def test_a_draw_is_one_of_the_kept_tokens(logits, uniform, temperature, top_k, top_p, min_p):
    drawn = sample(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    greater = sum(x > logits[drawn] for x in logits)
    assert top_k == 0 or greater < top_k
    gap = (max(logits) - logits[drawn]) / temperature
    assert np.exp(-gap) >= min_p * (1 - 1e-6)


def test_a_row_is_drawn_alike_alone_and_in_a_batch():
    n = 40
    rows = (
        RNG.standard_normal((n, 300)).astype(np.float32) * 3,
        RNG.choice([0.0, 0.7, 1.3], n).astype(np.float32),
        RNG.choice([0, 5, 400], n).astype(np.int32),
        RNG.choice([1.0, 0.9, 0.3], n).astype(np.float32),
        RNG.choice([0.0, 0.05], n).astype(np.float32),
        RNG.random(n),
    )
    together = OPS.sample(*rows)
    assert [int(OPS.sample(*(r[i : i + 1] for r in rows))[0]) for i in range(n)] == list(together)
    assert len(set(together.tolist())) > 20


def test_logprobs_are_log_softmax_in_descending_order():
    logits = RNG.standard_normal((4, 50)).astype(np.float32) * 5
    logits[0, [7, 3]] = 40.0  # a tie
    ids = np.array([7, 0, 49, 3], np.int32)
    chosen, top_ids, top = OPS.logprobs(logits, ids, 3)
    wide = logits.astype(np.float64)
    wanted = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(chosen, wanted[range(4), ids], rtol=1e-6)
    assert top_ids[0].tolist()[:2] == [3, 7]
    np.testing.assert_allclose(top, np.sort(wanted, axis=1)[:, :-4:-1], rtol=1e-6)
    assert (chosen.dtype, top_ids.dtype, top.dtype) == (np.float32, np.int32, np.float32)


def test_logprobs_with_none_wanted_and_with_masked_tokens():
    logits = np.array([[0.0, -np.inf, 0.0]], np.float32)
    chosen, top_ids, top = OPS.logprobs(logits, np.array([0], np.int32), 0)
    assert chosen[0] == pytest.approx(np.log(0.5))
    assert top_ids.shape == top.shape == (1, 0)
