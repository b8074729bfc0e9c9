"""A request resumed after any token goes on exactly where the earlier attempt stood."""

from __future__ import annotations

import pytest
from driving import Driver, a_request
from toy import toy

from freehold.errors import InvalidSchema
from freehold.types import FinishReason

MODEL, TOKENIZER = toy(eos_bias=-3.0)
PROMPT = [(7 * j + 3) % 251 for j in range(19)]
SCHEMA = '{"type": "array", "items": {"enum": ["ab", "你好", 3]}, "minItems": 4, "maxItems": 9}'

CASES = {
    "greedy": {"temperature": 0.0, "max_tokens": 25, "repetition_penalty": 1.3},
    "sampled_with_penalties": {
        "max_tokens": 25,
        "frequency_penalty": 0.8,
        "presence_penalty": 0.4,
        "logit_bias": dict.fromkeys(range(228, 234), 3.0),  # many unfinished characters
        "ignore_eos": True,
    },
    "stop_string_across_tokens": {
        "max_tokens": 60,
        "temperature": 2.0,
        "logit_bias": {ord(c): 9.0 for c in "abc"},
        "stop": ("abcab", "ccc"),
        "ignore_eos": True,
    },
    "json_schema": {"max_tokens": 80, "json_schema": SCHEMA},
}


def driver(**config):
    return Driver(MODEL, TOKENIZER, **({"block_size": 4, "num_blocks": 100} | config))


def request(case, output=(), seed=11):
    return a_request("r", PROMPT, output, seed=seed, num_logprobs=1, **CASES[case])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_resumed_at_every_token_it_gives_the_same_tokens_and_text(case, seed):
    (whole,) = driver().run(request(case, seed=seed))
    assert len(whole.token_ids) > 5
    for k in range(1, len(whole.token_ids)):
        for engine in (driver(), driver(max_num_batched_tokens=3, enable_prefix_cache=False)):
            (rest,) = engine.run(request(case, whole.token_ids[:k], seed))
            assert rest.token_ids == whole.token_ids[k:]
            assert [e.index for e in rest.events] == list(range(k, len(whole.token_ids)))
            assert [e.text for e in rest.events] == [e.text for e in whole.events[k:]]
            assert rest.logprobs == whole.logprobs[k:]
            assert rest.finish_reason is whole.finish_reason
            assert rest.events[0].num_prompt_tokens == len(PROMPT)


@pytest.mark.parametrize("case", CASES)
def test_resumed_after_its_last_token_it_only_says_how_it_ended(case):
    (whole,) = driver().run(request(case))
    engine = driver()
    (rest,) = engine.run(request(case, whole.token_ids))
    (event,) = rest.events
    assert (event.token_id, event.text) == (None, "")
    assert event.index == len(whole.token_ids)
    assert event.finish_reason is whole.finish_reason
    assert rest.pieces == [], "nothing was computed"


def test_a_resumed_request_survives_preemption():
    (whole,) = driver().run(request("sampled_with_penalties"))
    tight = driver(num_blocks=13)
    others = [a_request(i, [i + 1] * 3, max_tokens=40, ignore_eos=True, seed=i) for i in range(3)]
    resumed = request("sampled_with_penalties", whole.token_ids[:6])
    outcomes = tight.run(*others[:1], resumed, *others[1:])
    assert resumed.num_preemptions > 0
    assert outcomes[1].token_ids == whole.token_ids[6:]
    assert "".join(e.text for e in whole.events[6:]) == outcomes[1].text


def test_resumed_tokens_that_break_the_schema_are_refused():
    with pytest.raises(InvalidSchema, match="resumed"):
        driver().engine.add(request("json_schema", [65, 66]))


def test_a_cancelled_request_may_be_resumed_by_another_engine():
    (whole,) = driver().run(request("stop_string_across_tokens"))
    first = driver()
    first.engine.add(request("stop_string_across_tokens"))
    for _ in range(4):
        first.step()
    first.engine.cancel("r")
    first.run()
    emitted = first.outcomes["r"]
    assert emitted.finish_reason is FinishReason.CANCELLED
    (rest,) = driver().run(request("stop_string_across_tokens", emitted.token_ids))
    assert emitted.token_ids + rest.token_ids == whole.token_ids
