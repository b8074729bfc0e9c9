"""Who runs when: fairness, admission without deadlock, and random traces."""

from __future__ import annotations

import random
import time

import pytest
from driving import Driver, a_request
from naive import naive
from toy import toy

from freehold.engine import Engine, EngineConfig
from freehold.errors import ContextLengthExceeded, InvalidRequest
from freehold.types import FinishReason

MODEL, TOKENIZER = toy(eos_bias=-30.0)


def test_requests_that_lack_one_token_come_before_pieces_of_older_prompts():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=300, max_num_batched_tokens=10)
    driver.engine.add(a_request("talks", [1, 2], max_tokens=40))
    driver.step()
    driver.engine.add(a_request("long", range(100), max_tokens=2))
    driver.engine.add(a_request("late", range(50, 90), max_tokens=2))
    for _ in range(9):
        driver.step()
    assert driver.outcomes["talks"].pieces == [2] + [1] * 9, "a token in every step"
    assert driver.outcomes["long"].pieces == [9] * 9, "the rest of the budget"
    assert driver.outcomes["late"].pieces == [], "first come, first served"
    driver.run()
    assert driver.outcomes["late"].finish_reason is FinishReason.LENGTH


def test_short_prompts_do_not_wait_for_the_long_one_before_them():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=300, max_num_batched_tokens=40)
    driver.engine.add(a_request("talks", [1, 2], max_tokens=40))
    driver.step()
    driver.engine.add(a_request("long", range(200), max_tokens=2))
    driver.engine.add(a_request("short", range(50, 60), max_tokens=2))
    driver.engine.add(a_request("second long", range(250, 150, -1), max_tokens=2))
    driver.step()
    pieces = {name: driver.outcomes[name].pieces for name in driver.outcomes}
    assert pieces == {"talks": [2, 1], "long": [19], "short": [10], "second long": [10]}
    driver.run()
    assert sum(driver.outcomes["long"].pieces) == 201


def test_what_the_next_prompt_cannot_use_goes_to_the_long_one():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=60, max_num_batched_tokens=40)
    driver.engine.add(a_request("long", range(200), max_tokens=2))
    driver.engine.add(a_request("no room yet", range(200), max_tokens=2))
    driver.step()
    assert driver.outcomes["long"].pieces == [40]
    driver.run()


def test_no_more_than_max_num_requests_run_at_once():
    driver = Driver(MODEL, TOKENIZER, num_blocks=300, max_num_requests=3)
    for i in range(7):
        driver.engine.add(a_request(i, [i + 1], max_tokens=5))
    driver.step()
    assert (driver.engine.stats().num_running, driver.engine.stats().num_waiting) == (3, 4)
    driver.run()


def test_a_budget_below_the_number_of_requests_starves_nobody_for_ever():
    driver = Driver(MODEL, TOKENIZER, num_blocks=300, max_num_batched_tokens=1)
    outcomes = driver.run(*(a_request(i, [i + 1, 2, 3], max_tokens=6) for i in range(5)))
    assert all(len(outcome.token_ids) == 6 for outcome in outcomes)


def test_a_request_that_fills_the_whole_cache_is_served_beside_others():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=10)
    whole = a_request("whole", range(20), max_tokens=20)
    others = [a_request(i, range(i, i + 9), max_tokens=25) for i in range(4)]
    outcomes = driver.run(others[0], whole, *others[1:])
    assert len(outcomes[1].token_ids) == 20
    assert all(len(outcome.token_ids) == 25 for outcome in [outcomes[0], *outcomes[2:]])


def test_a_newcomer_waits_rather_than_be_preempted_at_once():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=5)
    driver.engine.add(a_request("old", [1, 2, 3], max_tokens=10))
    driver.step()
    (outcome,) = driver.run(a_request("new", range(16), max_tokens=3))
    assert driver.engine.stats().preemptions_total == 0
    assert outcome.pieces == [16, 1, 1]


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "figures"),
    [(41, None, ("41", "40")), (40, None, ("40", "40")), (30, 11, ("30", "11", "40"))],
)
def test_what_never_fits_is_refused_with_both_lengths_and_nothing_held(
    num_prompt, max_tokens, figures
):
    engine = Engine(MODEL, TOKENIZER, EngineConfig(block_size=4, num_blocks=10))
    assert engine.max_model_len == 40
    with pytest.raises(ContextLengthExceeded) as refused:
        engine.add(a_request("r", range(num_prompt), max_tokens=max_tokens))
    assert all(figure in refused.value.message for figure in figures)
    assert not engine.has_work
    assert engine.stats().requests_total == 0


def test_without_max_tokens_the_answer_fills_the_context():
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=10)
    (outcome,) = driver.run(a_request("r", range(13)))
    assert len(outcome.token_ids) == 27
    assert outcome.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("prompt", "sampling", "param"),
    [
        ([], {}, "prompt"),
        ([5, 10_000], {}, "prompt"),
        ([-1], {}, "prompt"),
        ([5], {"logit_bias": {10_000: 1.0}}, "logit_bias"),
        ([5], {"temperature": float("nan")}, "temperature"),
    ],
)
def test_bad_requests_are_refused_by_field(prompt, sampling, param):
    engine = Engine(MODEL, TOKENIZER, EngineConfig(num_blocks=10))
    with pytest.raises(InvalidRequest) as refused:
        engine.add(a_request("r", prompt, **sampling))
    assert refused.value.param == param


def test_stop_ids_and_eos_end_an_answer_and_ignore_eos_does_not():
    (eos,) = sorted(TOKENIZER.eos_token_ids)[:1]
    force = {"logit_bias": {eos: 100.0}, "max_tokens": 4}
    (ended,) = Driver(MODEL, TOKENIZER, num_blocks=10).run(a_request("r", [1], **force))
    assert (ended.token_ids, ended.text, ended.finish_reason) == ([eos], "", FinishReason.STOP)
    (ignored,) = Driver(MODEL, TOKENIZER, num_blocks=10).run(
        a_request("r", [1], ignore_eos=True, **force)
    )
    assert ignored.token_ids == [eos] * 4
    assert ignored.finish_reason is FinishReason.LENGTH
    word = 259  # "hello"
    for include, text in [(False, ""), (True, "hello")]:
        request = a_request(
            "r",
            [1],
            logit_bias={word: 100.0},
            stop_token_ids=(word,),
            include_stop_in_output=include,
        )
        (stopped,) = Driver(MODEL, TOKENIZER, num_blocks=10).run(request)
        assert (stopped.token_ids, stopped.text) == ([word], text)


@pytest.mark.parametrize("seed", range(12))
def test_random_traces_of_arrivals_cancels_and_deadlines_lose_nothing(seed):
    """Everything that finishes by itself equals the naive loop; everything else ends in time."""
    rng = random.Random(seed)
    model, tokenizer = toy(eos_bias=rng.choice([-30.0, -1.0]))
    driver = Driver(
        model,
        tokenizer,
        block_size=rng.choice([1, 4, 16]),
        num_blocks=rng.choice([200, 320]),
        max_model_len=120,
        max_num_batched_tokens=rng.choice([5, 24, 300]),
        max_num_requests=rng.choice([2, 8, 64]),
        enable_prefix_cache=rng.random() < 0.8,
    )
    requests, cancelled, has_deadline = {}, set(), set()
    common = [rng.randrange(250) for _ in range(40)]
    for step in range(400):
        if step < 150 and rng.random() < 0.3:
            prompt = common[: rng.randrange(40)] + [rng.randrange(250) for _ in range(5)]
            request = a_request(
                step,
                prompt,
                max_tokens=rng.randint(1, 60),
                seed=step,
                temperature=rng.choice([0.0, 1.0]),
                stop=("he", "ab") if rng.random() < 0.5 else (),
            )
            if rng.random() < 0.15:
                request.deadline = time.monotonic() + rng.choice([-1.0, 0.0, 0.005, 0.02])
                has_deadline.add(request.request_id)
            requests[request.request_id] = request
            driver.engine.add(request)
        if requests and rng.random() < 0.08:
            name = rng.choice(list(requests))
            if driver.engine.cancel(name):
                cancelled.add(name)
        driver.step()
    driver.run()
    assert len(requests) > 20
    assert cancelled
    for name, request in requests.items():
        outcome = driver.outcomes[name]
        if name in cancelled:
            assert outcome.finish_reason is FinishReason.CANCELLED
        elif outcome.finish_reason is FinishReason.DEADLINE:
            assert name in has_deadline
        want = naive(model, tokenizer, request.prompt_token_ids, request.sampling)
        num = len(outcome.token_ids)
        assert outcome.token_ids == want.token_ids[:num]
        if outcome.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            assert outcome.text == want.text
        # An answer cut short may show what a longer one would have held back or cut.
    stats = driver.engine.stats()
    assert stats.requests_total == len(requests)
    assert stats.output_tokens_total == sum(len(o.token_ids) for o in driver.outcomes.values())
