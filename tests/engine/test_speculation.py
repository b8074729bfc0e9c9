"""Guesses change how many steps an answer takes, and nothing else.

Answers over few tokens repeat themselves, so that guesses are made and are often right.
"""

from __future__ import annotations

import functools

import pytest
from driving import Driver, a_request, assert_equals_naive
from naive import naive
from toy import toy

from freehold.types import SamplingParams

MODEL, TOKENIZER = toy(eos_bias=-2.0)
FEW = dict.fromkeys((97, 98, 104), 100.0)  # a, b, h
KINDS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "top_p": 0.9, "min_p": 0.01},
    "penalties": {"frequency_penalty": 0.2, "presence_penalty": 0.3, "repetition_penalty": 1.05},
    "stop_string": {"stop": ("abab", "hhb")},
    "stop_token": {"logit_bias": FEW | {99: 97.0}, "stop_token_ids": (99,)},
    "eos": {"logit_bias": FEW | {min(TOKENIZER.eos_token_ids): 98.0}, "ignore_eos": False},
}


def sampling_of(kind, i, **more):
    by_default = {"logit_bias": FEW, "max_tokens": 40, "num_logprobs": 2, "ignore_eos": True}
    return by_default | {"seed": i} | KINDS[kind] | more


def speculating(**config):
    """Costs as assumed at first, whatever a step of the toy takes on this machine."""
    driver = Driver(MODEL, TOKENIZER, **config)
    driver.engine._speculator.step_cost.observe = lambda num_rows, seconds: None
    return driver


def prompt_of(i):
    return [97 + (i * 7 + j * j) % 3 for j in range(5 + 3 * i)]


@functools.cache
def expected(kind, i):
    sampling = SamplingParams(**sampling_of(kind, i))
    return naive(MODEL, TOKENIZER, prompt_of(i), sampling)


@pytest.mark.parametrize("num_blocks", [16, 200])
@pytest.mark.parametrize("budget", [5, 16, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_speculating_engine_equals_naive_loop(kind, budget, num_blocks):
    driver = speculating(block_size=4, num_blocks=num_blocks, max_num_batched_tokens=budget)
    requests = [a_request(i, prompt_of(i), **sampling_of(kind, i)) for i in range(5)]
    outcomes = driver.run(requests[0]) + driver.run(*requests[1:])
    for i, outcome in enumerate(outcomes):
        want = expected(kind, i)
        assert_equals_naive(outcome, want)
        assert outcome.logprobs == want.logprobs
    stats = driver.engine.stats()
    assert stats.output_tokens_total == sum(len(o.token_ids) for o in outcomes)
    assert 0 < stats.accepted_tokens_total < stats.draft_tokens_total
