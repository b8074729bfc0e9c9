"""Logprobs are those of the raw logits, for drawn tokens and for prompts in any pieces."""

from __future__ import annotations

import numpy as np
import pytest
from driving import Driver, a_request
from naive import whole_context_logits
from toy import toy

MODEL, TOKENIZER = toy(eos_bias=-30.0)
PROMPT = [(7 * j + 3) % 251 for j in range(70)]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def expected_rows(token_ids):
    """For each token but the first: log-softmax before it, [n - 1, vocab]."""
    return log_softmax(whole_context_logits(MODEL, token_ids))[:-1]


def assert_entry(entry, row, token, num_top):
    own, *top = entry
    assert own.token_id == token
    assert own.logprob == pytest.approx(row[token], abs=1e-5)
    best = np.argsort(-row, kind="stable")[:num_top]
    assert [t.token_id for t in top] == best.tolist()
    assert [t.logprob for t in top] == pytest.approx(row[best], abs=1e-5)
    assert all(t.token_bytes == TOKENIZER.token_bytes(t.token_id) for t in entry)
    assert all(t.text == TOKENIZER.token_text(t.token_id) for t in entry)


@pytest.mark.parametrize("num_top", [0, 1, 20])
def test_logprobs_ignore_temperature_penalties_and_bias(num_top):
    request = a_request(
        "r",
        PROMPT,
        max_tokens=8,
        num_logprobs=num_top,
        temperature=3.0,
        presence_penalty=2.0,
        repetition_penalty=1.5,
        logit_bias={3: 5.0},
    )
    others = [a_request(i, [i + 1], max_tokens=4, num_logprobs=i or None) for i in range(4)]
    outcome, *_ = Driver(MODEL, TOKENIZER, num_blocks=64).run(request, *others)
    rows = expected_rows([*PROMPT, *outcome.token_ids])[len(PROMPT) - 1 :]
    for event, row in zip(outcome.events, rows, strict=True):
        assert_entry((event.logprob, *event.top_logprobs), row, event.token_id, num_top)


def test_nobody_who_did_not_ask_gets_logprobs():
    wants = a_request("wants", [1], max_tokens=4, num_logprobs=2)
    not_ = a_request("not", [2], max_tokens=4)
    _, outcome = Driver(MODEL, TOKENIZER, num_blocks=64).run(wants, not_)
    assert all(e.logprob is None and e.top_logprobs == () for e in outcome.events)
    assert outcome.events[0].prompt_logprobs is None


@pytest.mark.parametrize("budget", [1, 7, 64, 500])
@pytest.mark.parametrize("num_prompt", [1, 2, 16, 70])
def test_prompt_logprobs_are_whole_in_any_pieces_and_with_a_warm_prefix_cache(num_prompt, budget):
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=64, max_num_batched_tokens=budget)
    prompt = PROMPT[:num_prompt]
    driver.run(a_request("warm", prompt, max_tokens=2))
    (outcome,) = driver.run(a_request("r", prompt, max_tokens=3, prompt_logprobs=2))
    scored = outcome.events[0].prompt_logprobs
    assert scored[0] is None
    assert len(scored) == num_prompt
    for entry, row, token in zip(scored[1:], expected_rows(prompt), prompt[1:], strict=True):
        assert_entry(entry, row, token, 2)
    assert all(e.prompt_logprobs is None for e in outcome.events[1:])
    assert outcome.events[0].num_cached_tokens == 0
    if num_prompt > budget:
        assert len(outcome.pieces) > 3


def test_prompt_logprobs_survive_preemption_in_the_middle_of_the_prompt():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=24, max_num_batched_tokens=3)
    old = a_request("old", range(20), max_tokens=60)
    driver.engine.add(old)
    while old.num_tokens < 22:
        driver.step()
    request = a_request("r", PROMPT[:60], max_tokens=3, prompt_logprobs=1)
    _, outcome = driver.outcomes["old"], driver.run(request)[0]
    assert request.num_preemptions > 0
    scored = outcome.events[0].prompt_logprobs
    for entry, row, token in zip(scored[1:], expected_rows(PROMPT[:60]), PROMPT[1:60], strict=True):
        assert_entry(entry, row, token, 1)
