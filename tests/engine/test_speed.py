"""Measuring speed leaves an engine as it was, and asks of it only what it can do."""

from __future__ import annotations

import toy
from driving import Driver

from freehold.engine.speed import NUM_DECODE_TOKENS, Speedometer, speeds


def test_measuring_leaves_the_engine_idle_and_prompts_too_long_out():
    model, tokenizer = toy.toy(context=256)
    engine = Driver(model, tokenizer, num_blocks=80).engine
    meter = Speedometer(engine, tokenizer.vocab_size)
    rates, crowds = speeds(meter, (64, 255, 256), (1, 3))
    assert list(rates) == [64, 255]
    assert [crowd.num_streams for crowd in crowds] == [1, 3]
    assert all(0 < crowd.ttft_p50_seconds <= crowd.ttft_max_seconds for crowd in crowds)
    assert engine.stats().output_tokens_total >= 4 * NUM_DECODE_TOKENS
    assert not engine.has_work
    assert engine.stats().num_free_blocks == 80
