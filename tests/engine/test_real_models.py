"""The equivalence grid over real architectures, tiny and random, on every Ops that is there.

Equal means equal bits: tokens and logprobs do not depend on pieces, prefix hits, preemption or
company, because no row of a result depends on what it is batched with.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
from driving import Driver, a_request, assert_equals_naive
from naive import naive
from tiny import VARIANTS, random_tensors
from toy import ToyTokenizer

from freehold.model.architectures import build_model
from freehold.model.config import ModelConfig
from freehold.types import SamplingParams, WeightFormat

TOKENIZER = ToyTokenizer()
MAX_TOKENS = 16
CASES = [
    (ops, variant)
    for ops in ("reference", "native", "native_int8", "native_int4")
    for variant in ("llama", "deepseek_v3")
]


class InMemory:
    """Tensors as a checkpoint gives them."""

    def __init__(self, tensors):
        self.tensors = tensors

    def names(self):
        return self.tensors.keys()

    def info(self, name):
        return SimpleNamespace(dtype="F32", shape=self.tensors[name].shape)

    def tensor(self, name):
        return self.tensors[name]

    def release(self, name):
        pass


@functools.cache
def model_of(ops_name, variant):
    ops_name, _, weight_format = ops_name.partition("_")
    if ops_name == "native":
        pytest.importorskip("freehold._native")
    from freehold.ops import create

    config_json = VARIANTS[variant]
    tensors = random_tensors(ModelConfig.from_dict(config_json), seed=1)
    ops = create.create(ops_name, num_threads=1)
    quantize = WeightFormat(weight_format) if weight_format else None
    return build_model(config_json, InMemory(tensors), ops=ops, quantize=quantize)


def prompt_of(i, length, is_shared):
    common = [(7 * j + 3) % 251 for j in range(length * 3 // 4)] if is_shared else []
    return common + [(11 * j + 37 * i + 1) % 251 for j in range(length - len(common))]


def sampling_of(kind, i):
    sampled = {"top_p": 0.95, "top_k": 50, "frequency_penalty": 0.4}
    greedy = {"temperature": 0.0, "repetition_penalty": 1.1}
    kinds = {"greedy": greedy, "sampled": sampled}
    rest = {"seed": i, "max_tokens": MAX_TOKENS, "ignore_eos": True, "num_logprobs": 0}
    return kinds[kind] | rest


@functools.cache
def expected(ops_name, variant, kind, i, length, is_shared):
    model = model_of(ops_name, variant)
    sampling = SamplingParams(**sampling_of(kind, i))
    return naive(model, TOKENIZER, prompt_of(i, length, is_shared), sampling)


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["distinct", "shared"])
@pytest.mark.parametrize("blocks", ["ample", "tight"])
@pytest.mark.parametrize("budget", [7, 200])
@pytest.mark.parametrize("length", [3, 21])
@pytest.mark.parametrize(("ops_name", "variant"), CASES)
def test_engine_equals_naive_loop(ops_name, variant, length, budget, blocks, is_shared, kind):
    num_blocks = 200 if blocks == "ample" else 2 * -(-(length + 1) // 4) + 3
    model = model_of(ops_name, variant)
    driver = Driver(
        model, TOKENIZER, block_size=4, num_blocks=num_blocks, max_num_batched_tokens=budget
    )
    requests = [
        a_request(i, prompt_of(i, length, is_shared), **sampling_of(kind, i)) for i in range(4)
    ]
    outcomes = driver.run(requests[0]) + driver.run(*requests[1:])
    for i, outcome in enumerate(outcomes):
        want = expected(ops_name, variant, kind, i, length, is_shared)
        assert_equals_naive(outcome, want)
        assert outcome.logprobs == want.logprobs
    if length > budget:
        assert len(outcomes[0].pieces) > MAX_TOKENS
    if is_shared and length == 21 and blocks == "ample":
        assert all(outcome.events[0].num_cached_tokens >= 12 for outcome in outcomes[1:])
    assert (driver.engine.stats().preemptions_total > 0) == (blocks == "tight")


@pytest.mark.parametrize(("ops_name", "variant"), CASES)
def test_a_request_alone_and_among_31_others_is_identical(ops_name, variant):
    model = model_of(ops_name, variant)

    def watched():
        return a_request("watched", prompt_of(0, 21, False), **sampling_of("sampled", 0))

    alone = Driver(model, TOKENIZER, num_blocks=200).run(watched())[0]
    others = [
        a_request(i, prompt_of(i, 1 + i, False), **sampling_of("sampled", i)) for i in range(31)
    ]
    crowd = Driver(model, TOKENIZER, num_blocks=200, max_num_batched_tokens=64)
    among = crowd.run(*others[:16], watched(), *others[16:])[16]
    assert among.token_ids == alone.token_ids
    assert among.logprobs == alone.logprobs
