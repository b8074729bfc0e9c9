"""Guesses change how many steps an answer takes, and nothing else.

Answers over few tokens repeat themselves, so that guesses are made and are often right.
"""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import pytest
from driving import Driver, a_request, assert_equals_naive
from naive import naive
from toy import toy

from freehold.engine import Engine, EngineConfig
from freehold.types import SamplingParams, Speculate

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


def speculating(model=MODEL, row_price=0.05, **config):
    """Costs as given, whatever a step takes on this machine. Asserts that steps keep in bounds."""
    driver = Driver(model, TOKENIZER, **config)
    speculator, budget = driver.engine._speculator, driver.engine.scheduler.budget
    speculator.step_cost = SimpleNamespace(
        of=lambda num_rows: 1 + row_price * num_rows,
        of_a_row=lambda num_rows: row_price,
        observe=lambda num_rows, seconds: None,
    )
    add_drafts = speculator.add_drafts

    def checked(batch):
        batch = add_drafts(batch)
        assert sum(num_tokens for _, num_tokens in batch) <= budget.num_tokens
        for request, _ in batch:
            num_output = len(request.output_token_ids) + len(request.drafts)
            assert num_output <= request.max_output_tokens, "a draft nobody can draw"
        return batch

    speculator.add_drafts = checked
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


def repeating(name, **more):
    """An answer of one token again and again."""
    sampling = {"temperature": 0.0, "logit_bias": {97: 100.0}, "ignore_eos": True} | more
    return a_request(name, [1, 2, 3], **sampling)


def test_a_repeating_answer_takes_a_few_steps():
    driver = speculating(num_blocks=100)
    (outcome,) = driver.run(repeating("r", max_tokens=100))
    stats = driver.engine.stats()
    assert outcome.token_ids == [97] * 100
    assert stats.steps_total == 100 - stats.accepted_tokens_total < 20


def test_nothing_is_guessed_when_it_is_off_or_rows_cost_as_much_as_steps():
    for config in ({"speculate": Speculate.OFF}, {"row_price": 1e6}):
        driver = speculating(num_blocks=100, **config)
        driver.run(repeating("r", max_tokens=30))
        assert driver.engine.stats().draft_tokens_total == 0
        assert driver.engine.stats().steps_total == 30


def test_a_crowd_is_not_guessed_for():
    driver = speculating(num_blocks=400)
    driver.run(*(repeating(str(i), max_tokens=20) for i in range(16)))
    stats = driver.engine.stats()
    assert (stats.steps_total, stats.draft_tokens_total) == (20, 0)


def test_a_full_cache_has_no_room_for_guesses_and_nobody_is_preempted_for_one():
    driver = speculating(block_size=4, num_blocks=6, max_num_requests=2)
    (first, second) = driver.run(repeating("a", max_tokens=9), repeating("b", max_tokens=9))
    assert len(first.token_ids) == len(second.token_ids) == 9
    stats = driver.engine.stats()
    assert (stats.preemptions_total, stats.draft_tokens_total > 0) == (0, True)


def test_a_follow_up_finds_the_blocks_of_a_guessed_answer_and_no_refused_guess_in_them():
    driver = speculating(block_size=4, num_blocks=100)
    sampling = sampling_of("sampled", 3)
    (first,) = driver.run(a_request("a", prompt_of(1), **sampling))
    text = [*prompt_of(1), *first.token_ids]
    assert driver.engine.stats().accepted_tokens_total > 0
    (second,) = driver.run(a_request("b", [*text, 97], **sampling))
    assert second.events[0].num_cached_tokens == (len(text) - 1) // 4 * 4
    want = naive(MODEL, TOKENIZER, [*text, 97], SamplingParams(**sampling))
    assert second.token_ids == want.token_ids
    assert second.logprobs == want.logprobs


def test_guesses_inside_a_schema_leave_the_answer_as_it_is():
    schema = json.dumps(
        {"type": "array", "items": {"enum": ["abc", "hello"]}, "minItems": 12, "maxItems": 12}
    )
    sampling = {"json_schema": schema, "max_tokens": 300, "num_logprobs": 0}
    answers = []
    for mode in (Speculate.OFF, Speculate.LOOKUP):
        driver = speculating(num_blocks=400, speculate=mode)
        requests = [a_request(i, [i + 1], seed=i, **sampling) for i in range(4)]
        answers.append([(o.token_ids, o.logprobs, o.text) for o in driver.run(*requests)])
    assert answers[0] == answers[1]
    assert all(len(json.loads(text)) == 12 for _, _, text in answers[0])
    assert driver.engine.stats().accepted_tokens_total > 20


def test_a_step_that_fails_leaves_no_guess_behind(monkeypatch):
    driver = speculating(num_blocks=100)
    driver.engine.add(repeating("r", max_tokens=50))
    while not driver.engine.stats().accepted_tokens_total:
        driver.step()
    with monkeypatch.context() as patched:
        patched.setattr(driver.engine._sampler, "sample", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            driver.engine.step()
    driver.engine.discard_running()
    driver.engine.scheduler.check()
    (after,) = driver.run(repeating("again", max_tokens=50))
    assert after.token_ids == [97] * 50


def test_by_default_an_engine_guesses():
    assert EngineConfig().speculate is Speculate.AUTO
    assert Engine(MODEL, TOKENIZER)._speculator.guesses([1]) is not None
