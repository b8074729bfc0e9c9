"""DeepSeek-V3's own guesses: drawn tokens stay what they are, and come in fewer steps.

The tiny model's layers say little, so that a token follows mostly from the one before it; its MTP
layer looks at that one alone, and is right most of the time.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from driving import Driver, a_request, assert_equals_naive
from naive import naive
from tiny import VARIANTS, Tensors, random_tensors
from toy import ToyTokenizer

from freehold.engine.guesses import Guesses
from freehold.model.architectures import build_model
from freehold.model.config import ModelConfig
from freehold.ops import BatchLayout
from freehold.ops.create import create
from freehold.types import SamplingParams, Speculate

TOKENIZER = ToyTokenizer()
CONFIG = VARIANTS["deepseek_v3"]


@functools.cache
def model_of(ops_name):
    if ops_name == "native":
        pytest.importorskip("freehold._native")
    config = ModelConfig.from_dict(CONFIG)
    tensors = random_tensors(replace(config, has_mtp=True), seed=5)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor *= 0.02
    width = config.hidden_size
    tensors["model.layers.3.eh_proj.weight"] = np.eye(width, 2 * width, dtype=np.float32)
    return build_model(CONFIG, Tensors(tensors), ops=create(ops_name, num_threads=1))


def speculating(model, mode=Speculate.MTP, **config):
    driver = Driver(model, TOKENIZER, block_size=4, speculate=mode, **config)
    driver.engine._speculator.step_cost.observe = lambda num_rows, seconds: None
    return driver


def prompt_of(i, length=9):
    return [(7 * j + 3 + 31 * i * (j > 5)) % 251 for j in range(length + i)]


def sampling_of(kind, i):
    kinds = {
        "greedy": {"temperature": 0.0},
        "sampled": {"temperature": 0.6, "frequency_penalty": 0.3},
    }
    return {"max_tokens": 30, "seed": i, "ignore_eos": True, "num_logprobs": 1} | kinds[kind]


@functools.cache
def expected(ops_name, kind, i):
    sampling = SamplingParams(**sampling_of(kind, i))
    return naive(model_of(ops_name), TOKENIZER, prompt_of(i), sampling)


@pytest.mark.parametrize("mode", [Speculate.MTP, Speculate.AUTO])
@pytest.mark.parametrize("num_blocks", [16, 200])
@pytest.mark.parametrize("budget", [5, 200])
@pytest.mark.parametrize("kind", ["greedy", "sampled"])
@pytest.mark.parametrize("ops_name", ["reference", "native"])
def test_speculating_engine_equals_naive_loop(ops_name, kind, budget, num_blocks, mode):
    driver = speculating(
        model_of(ops_name), mode, num_blocks=num_blocks, max_num_batched_tokens=budget
    )
    requests = [a_request(i, prompt_of(i), **sampling_of(kind, i)) for i in range(4)]
    outcomes = driver.run(requests[0]) + driver.run(*requests[1:])
    for i, outcome in enumerate(outcomes):
        want = expected(ops_name, kind, i)
        assert_equals_naive(outcome, want)
        assert outcome.logprobs == want.logprobs
    stats = driver.engine.stats()
    assert 0 < stats.accepted_tokens_total < stats.draft_tokens_total
    assert (stats.preemptions_total > 0) == (num_blocks == 16)


def test_right_guesses_halve_the_steps():
    driver = speculating(model_of("reference"), num_blocks=100)
    (outcome,) = driver.run(a_request("r", prompt_of(0), **sampling_of("greedy", 0)))
    stats = driver.engine.stats()
    assert len(outcome.token_ids) == 30
    assert stats.accepted_tokens_total >= 10
    assert stats.steps_total == 30 - stats.accepted_tokens_total


def whole_text_guesses(model, token_ids):
    """By position, from 2 on."""
    n = len(token_ids) - 1
    layout = BatchLayout(
        positions=np.arange(n, dtype=np.int32),
        slots=np.arange(n, dtype=np.int64),
        query_starts=np.array([0, n], np.int32),
        context_lens=np.array([n], np.int32),
        block_tables=np.arange(n, dtype=np.int32)[None],
        block_size=1,
    )
    caches, ids = model.make_caches(n, 1), np.array(token_ids, np.int32)
    ahead = model.look_ahead(model.forward(ids[:-1], layout, caches), ids[1:], layout, caches)
    return dict(enumerate(model.logits(ahead).argmax(axis=-1).tolist(), 2))


@pytest.mark.parametrize("ops_name", ["reference", "native"])
def test_guesses_are_those_of_one_forward_over_the_whole_text(ops_name, monkeypatch):
    """Through pieces and refused drafts the MTP layer's cache stays right."""
    guessed = {}
    keep = Guesses.look_ahead

    def recorded(self, token_id):
        guessed[request.num_tokens] = token_id
        keep(self, token_id)

    monkeypatch.setattr(Guesses, "look_ahead", recorded)
    driver = speculating(model_of(ops_name), num_blocks=100, max_num_batched_tokens=5)
    request = a_request("r", prompt_of(0), **sampling_of("sampled", 0))
    driver.run(request)
    stats = driver.engine.stats()
    assert 0 < stats.accepted_tokens_total < stats.draft_tokens_total
    wanted = whole_text_guesses(model_of(ops_name), request.token_ids(0, request.num_tokens))
    assert len(guessed) > 10
    assert guessed == {position: wanted[position] for position in guessed}
