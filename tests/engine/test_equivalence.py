"""The engine equals a naive loop, whatever happens on the way.

The grid runs prompt length × budget × free blocks × shared prefix × a cancelled neighbour ×
greedy or sampled, and asserts that pieces, prefix hits and preemptions did happen where they are
claimed. Here over the toy model, whose tokens reveal any bookkeeping error.
"""

from __future__ import annotations

import functools

import pytest
from driving import Driver, a_request, assert_equals_naive
from naive import naive
from toy import toy

from freehold.types import SamplingParams

BLOCK_SIZE = 4
MAX_TOKENS = 14
NUM_REQUESTS = 5
MODEL, TOKENIZER = toy(eos_bias=-2.0)

SAMPLING = {
    "greedy": {"temperature": 0.0, "repetition_penalty": 1.2},
    "sampled": {
        "temperature": 0.9,
        "top_p": 0.9,
        "top_k": 60,
        "min_p": 0.01,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "logit_bias": {5: 2.0, 9: -100.0},
        "stop": ("he", "\x07", "ab"),
    },
}


def prompts(length, is_shared):
    """Five prompts; shared: their first three quarters are the same."""
    common = [(7 * j + 3) % 251 for j in range(length * 3 // 4)] if is_shared else []
    return [
        common + [(11 * j + 37 * i + 1) % 251 for j in range(length - len(common))]
        for i in range(NUM_REQUESTS)
    ]


def sampling_of(kind, i):
    return {**SAMPLING[kind], "max_tokens": MAX_TOKENS, "seed": 2**40 + i, "num_logprobs": 0}


@functools.cache
def expected(kind, length, is_shared, i):
    prompt = prompts(length, is_shared)[i]
    return naive(MODEL, TOKENIZER, prompt, SamplingParams(**sampling_of(kind, i)))


@pytest.mark.parametrize("kind", SAMPLING)
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["together", "neighbour_cancelled"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["distinct", "shared"])
@pytest.mark.parametrize("blocks", ["ample", "tight"])
@pytest.mark.parametrize("budget", [3, 16, 200])
@pytest.mark.parametrize("length", [1, 4, 5, 31, 64])
def test_engine_equals_naive_loop(length, budget, blocks, is_shared, is_cancelled, kind):
    largest = -(-(length + MAX_TOKENS) // BLOCK_SIZE)
    # Tight: room for two prompts and a spare block, not for two answers.
    num_blocks = 400 if blocks == "ample" else max(largest, 2 * -(-(length + 1) // BLOCK_SIZE) + 2)
    driver = Driver(
        MODEL,
        TOKENIZER,
        block_size=BLOCK_SIZE,
        num_blocks=num_blocks,
        max_num_batched_tokens=budget,
        max_num_requests=NUM_REQUESTS + 1,
    )
    # One request ahead leaves the shared prefix in the cache.
    all_prompts = prompts(length, is_shared)
    requests = [a_request(i, p, **sampling_of(kind, i)) for i, p in enumerate(all_prompts)]
    (first,) = driver.run(requests[0])
    if is_cancelled:
        driver.engine.add(a_request("neighbour", all_prompts[1][::-1], max_tokens=MAX_TOKENS))
    for request in requests[1:3]:
        driver.engine.add(request)
    for _ in range(3):
        driver.step()
    if is_cancelled:
        assert driver.engine.cancel("neighbour")
    later = driver.run(*requests[3:])
    outcomes = [first, driver.outcomes["1"], driver.outcomes["2"], *later]

    for i, outcome in enumerate(outcomes):
        want = expected(kind, length, is_shared, i)
        assert_equals_naive(outcome, want)
        assert outcome.logprobs == pytest.approx(want.logprobs, abs=0)
    # What these runs claim has happened
    if length > budget:
        assert len(first.pieces) > len(first.token_ids), "no prompt went in pieces"
    num_cached = [o.events[0].num_cached_tokens for o in outcomes]
    if is_shared and length >= 31 and blocks == "ample":
        assert all(n == length * 3 // 4 // BLOCK_SIZE * BLOCK_SIZE for n in num_cached[1:])
    if not is_shared:
        assert num_cached == [0] * NUM_REQUESTS
    num_preemptions = driver.engine.stats().preemptions_total
    if blocks == "ample":
        assert num_preemptions == 0
    elif length <= 31 or (budget > 3 and not is_shared):
        assert num_preemptions > 0, "the tight cache was not tight"


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("kind", SAMPLING)
@pytest.mark.parametrize("budget", [3, 16, 200])
@pytest.mark.parametrize("length", [2, 3, 6])
def test_preempted_request_resumes_with_same_tokens(length, budget, kind, prefix_cache):
    """Short prompts come in together, then grow past what the cache holds."""
    model, tokenizer = MODEL, TOKENIZER
    driver = Driver(
        model,
        tokenizer,
        block_size=BLOCK_SIZE,
        num_blocks=11,
        max_num_batched_tokens=budget,
        enable_prefix_cache=prefix_cache,
    )
    sampling = SAMPLING[kind] | {"ignore_eos": True, "stop": (), "max_tokens": 30}
    requests = [
        a_request(i, prompt, **sampling, seed=i) for i, prompt in enumerate(prompts(length, False))
    ]
    outcomes = driver.run(*requests)
    assert driver.engine.stats().preemptions_total > 0
    assert requests[0].num_preemptions == 0, "the oldest is never preempted"
    for request, outcome in zip(requests, outcomes, strict=True):
        want = naive(model, tokenizer, request.prompt_token_ids, request.sampling)
        assert_equals_naive(outcome, want)
        if request.num_preemptions:
            assert sum(outcome.pieces) > length + 29, "nothing was computed again"
            return
    raise AssertionError("no request was preempted")


@pytest.mark.parametrize("length", [8, 16, 20])
def test_a_prompt_wholly_in_the_cache_still_computes_its_last_token(length):
    driver = Driver(MODEL, TOKENIZER, block_size=BLOCK_SIZE, num_blocks=64)
    prompt = prompts(length, False)[0]
    first, again = (
        driver.run(a_request(name, prompt, max_tokens=6, seed=3, ignore_eos=True))[0]
        for name in "ab"
    )
    assert first.token_ids == again.token_ids
    assert again.events[0].num_cached_tokens == (length - 1) // BLOCK_SIZE * BLOCK_SIZE
    assert sum(again.pieces) == sum(first.pieces) - again.events[0].num_cached_tokens


def test_a_follow_up_reuses_prompt_and_answer_of_the_turn_before():
    driver = Driver(MODEL, TOKENIZER, block_size=BLOCK_SIZE, num_blocks=64)
    prompt = prompts(10, False)[0]
    (first,) = driver.run(a_request("a", prompt, max_tokens=11, ignore_eos=True))
    (second,) = driver.run(a_request("b", [*prompt, *first.token_ids, 1, 2], max_tokens=3))
    # 10 + 11 tokens, of which the last was never computed: five full blocks
    assert second.events[0].num_cached_tokens == 20


def test_without_prefix_cache_nothing_is_reused():
    driver = Driver(
        MODEL, TOKENIZER, block_size=BLOCK_SIZE, num_blocks=64, enable_prefix_cache=False
    )
    for name in "ab":
        (outcome,) = driver.run(a_request(name, prompts(31, False)[0], max_tokens=6, seed=3))
        assert outcome.events[0].num_cached_tokens == 0


@pytest.mark.parametrize("kind", SAMPLING)
def test_a_request_alone_and_among_31_others_is_identical(kind):
    def watched():
        return a_request("watched", prompts(31, False)[0], **sampling_of(kind, 0))

    alone = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=600).run(watched())[0]
    crowd = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=600, max_num_batched_tokens=64)
    others = [
        a_request(i, [(i * 13 + j) % 251 for j in range(1 + i)], **sampling_of(kind, i + 1))
        for i in range(31)
    ]
    among = crowd.run(*others[:16], watched(), *others[16:])[16]
    assert among.token_ids == alone.token_ids
    assert among.text == alone.text
    assert among.logprobs == alone.logprobs
