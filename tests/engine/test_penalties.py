"""Sparse penalties equal their plain definition, and touch nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from driving import Driver, a_request
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import penalised
from toy import toy

from freehold.engine.penalties import Penalties
from freehold.types import SamplingParams

VOCAB = 200
ids = st.integers(0, VOCAB - 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(ids, min_size=1, max_size=90),
    st.lists(ids, max_size=150),
    st.sampled_from([0.0, 0.7, -2.0]),
    st.sampled_from([0.0, 0.3, -1.5]),
    st.sampled_from([1.0, 1.3, 0.5]),
    st.dictionaries(ids, st.floats(-100, 100, width=32), max_size=5),
)
def test_sparse_penalties_equal_their_definition(
    prompt, output, presence, frequency, repetition, bias
):
    sampling = SamplingParams(
        presence_penalty=presence,
        frequency_penalty=frequency,
        repetition_penalty=repetition,
        logit_bias=bias,
    )
    penalties = Penalties(sampling, prompt)
    for token in output:
        penalties.observe(token)
    row = np.random.default_rng(len(prompt)).normal(size=VOCAB).astype(np.float32)
    want = penalised(row, sampling, prompt, output)
    penalties.apply(row)
    np.testing.assert_allclose(row, want, rtol=0, atol=0)
    has_any = presence or frequency or repetition != 1.0
    assert penalties.is_active == bool(has_any or bias)


@pytest.mark.parametrize(
    "sampling",
    [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repetition_penalty": 50.0}],
    ids=str,
)
def test_penalties_make_repeats_rarer(sampling):
    model, tokenizer = toy(eos_bias=-30.0)

    def num_repeats(**extra):
        driver = Driver(model, tokenizer, num_blocks=64)
        narrow = {"logit_bias": dict.fromkeys(range(12), 9.0), "top_k": 30, "temperature": 3.0}
        (outcome,) = driver.run(a_request("r", [250], max_tokens=60, **narrow, **extra))
        return 60 - len(set(outcome.token_ids))

    assert num_repeats(**sampling) < num_repeats()


def test_a_bias_of_minus_100_bans_and_of_plus_100_forces():
    model, tokenizer = toy(eos_bias=-30.0)
    forced = a_request("forced", [1, 2], max_tokens=5, logit_bias={77: 100.0})
    (outcome,) = Driver(model, tokenizer, num_blocks=64).run(forced)
    assert outcome.token_ids == [77] * 5
    greedy = a_request("greedy", [1, 2], max_tokens=1, temperature=0.0)
    (outcome,) = Driver(model, tokenizer, num_blocks=64).run(greedy)
    (best,) = outcome.token_ids
    banned = a_request("banned", [1, 2], max_tokens=1, temperature=0.0, logit_bias={best: -100.0})
    (outcome,) = Driver(model, tokenizer, num_blocks=64).run(banned)
    assert outcome.token_ids != [best]
