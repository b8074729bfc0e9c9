"""A checkpoint directory becomes an engine that answers as the naive loop over its model does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from driving import a_request
from naive import naive
from tiny import write_checkpoint

from freehold.engine import EngineConfig
from freehold.engine.loading import load_engine
from freehold.model.loading import load_model
from freehold.ops.reference import ReferenceOps
from freehold.types import CacheFormat, FinishReason

CONFIG = EngineConfig(block_size=4, kv_cache_bytes=1 << 20)
SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2, 33]}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["llama_many_eos", "deepseek_v3"])
def directory(request, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / request.param, request.param, seed=3)


def run(engine, *requests):
    for request in requests:
        engine.add(request)
    events = {request.request_id: [] for request in requests}
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
        engine.scheduler.check()
    return [events[request.request_id] for request in requests]


def test_a_directory_answers_as_the_naive_loop_does(directory):
    loaded = load_engine(directory, ops=ReferenceOps(), config=CONFIG)
    model = load_model(directory, ops=ReferenceOps())
    prompts = [loaded.tokenizer.encode(text) for text in ("Hello", "你好，世界", "a")]
    sampling = {"max_tokens": 40, "stop": ("q", "\x00")}
    requests = [a_request(i, p, seed=i, **sampling) for i, p in enumerate(prompts)]
    for request, events in zip(requests, run(loaded.engine, *requests), strict=True):
        want = naive(model, loaded.tokenizer, request.prompt_token_ids, request.sampling)
        assert [e.token_id for e in events] == want.token_ids
        assert "".join(e.text for e in events) == want.text
        assert events[-1].finish_reason is want.finish_reason


def test_every_eos_id_of_the_directory_ends_an_answer(directory):
    loaded = load_engine(directory, ops=ReferenceOps(), config=CONFIG)
    assert len(loaded.tokenizer.eos_token_ids) == 2
    for eos in loaded.tokenizer.eos_token_ids:
        ((event,),) = run(loaded.engine, a_request("r", [1], logit_bias={eos: 100.0}))
        assert (event.token_id, event.text) == (eos, "")
        assert event.finish_reason is FinishReason.STOP


def test_a_schema_holds_over_a_real_tokenizer(directory):
    loaded = load_engine(directory, ops=ReferenceOps(), config=CONFIG)
    requests = [
        a_request(i, [i + 1], seed=i, temperature=2.0, json_schema=json.dumps(SCHEMA))
        for i in range(6)
    ]
    for events in run(loaded.engine, *requests):
        assert json.loads("".join(e.text for e in events))["n"] in (1, 2, 33)


def test_ids_the_tokenizer_does_not_have_can_be_drawn_and_scored(directory):
    loaded = load_engine(directory, ops=ReferenceOps(), config=CONFIG)
    padding = 319
    assert padding >= loaded.tokenizer.vocab_size
    (events,) = run(
        loaded.engine,
        a_request("r", [1], max_tokens=3, logit_bias={padding: 100.0}, num_logprobs=20),
    )
    assert [e.token_id for e in events] == [padding] * 3
    assert "".join(e.text for e in events) == ""


def test_an_int8_cache_holds_more_tokens_and_names_another_revision(directory):
    int8 = replace(CONFIG, kv_cache_format=CacheFormat.INT8)
    loaded = [load_engine(directory, ops=ReferenceOps(), config=c) for c in (CONFIG, int8)]
    blocks = [one.engine.stats().num_blocks for one in loaded]
    assert blocks[1] > 2 * blocks[0]  # the reference's other cache is float32
    assert loaded[1].revision == f"{loaded[0].revision}-kv-int8"
    (events,) = run(loaded[1].engine, a_request("r", [1, 2, 3], max_tokens=3))
    assert events[-1].finish_reason is not None


def test_the_cache_takes_what_it_is_given(directory):
    loaded = load_engine(directory, ops=ReferenceOps(), config=CONFIG)
    per_token = load_model(directory, ops=ReferenceOps()).cache_bytes_per_token
    num_blocks = loaded.engine.stats().num_blocks
    assert num_blocks * 4 * per_token <= 1 << 20 < (num_blocks + 1) * 4 * per_token
    assert loaded.engine.max_model_len == min(512, num_blocks * 4)
