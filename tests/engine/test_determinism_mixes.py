"""The same answer alone or in a crowd: random mixes of requests, bit for bit, on each instruction
set.

Each request of a mix has been run alone before: no speculation, no prefix cache, one thread, ample
blocks (of the same size: attention adds block by block), its prompt whole. In the mix it meets
others, arrives at any step, goes in pieces, is preempted, guessed ahead, finds its beginning in the
cache, or goes on from an earlier attempt.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from driving import Driver
from tiny import DEEPSEEK_V3, LLAMA, Tensors, random_tensors
from toy import ToyTokenizer

pytest.importorskip("freehold._native")

from freehold.engine import Request
from freehold.model.architectures import build_model
from freehold.model.config import ModelConfig
from freehold.ops.native import NativeOps, available_isas
from freehold.types import FinishReason, SamplingParams, Speculate, WeightFormat

BEST, *OTHERS = available_isas()
OTHERS.append("amx_emulated")  # the loops over matrix tiles in plain C++
NUM_MIXES, NUM_OTHER_MIXES = 1000, 200
NUM_REQUESTS = 40  # of each model; a mix takes a few
EOS = 5
SMALL = {
    "vocab_size": 72,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "eos_token_id": EOS,
    "bos_token_id": None,
}
LATENT = {
    "num_key_value_heads": 2,
    "q_lora_rank": 32,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
}
CONFIGS = {"llama": LLAMA | SMALL, "deepseek_v3": DEEPSEEK_V3 | SMALL | LATENT}
MODELS = [
    ("llama", WeightFormat.BF16),
    ("llama", WeightFormat.INT8),
    ("llama", WeightFormat.INT4),
    ("deepseek_v3", WeightFormat.BF16),
    ("deepseek_v3", WeightFormat.INT4),
]
TOKENIZER = ToyTokenizer()
TOKENIZER.eos_token_ids = frozenset()  # the config's alone


@functools.cache
def model_of(isa, variant, weight_format, num_threads):
    config = ModelConfig.from_dict(CONFIGS[variant])
    tensors = random_tensors(replace(config, has_mtp=variant == "deepseek_v3"), seed=11)
    ops = NativeOps(num_threads, isa)
    return build_model(CONFIGS[variant], Tensors(tensors), ops=ops, quantize=weight_format)


def a_prompt(rng):
    """One of a few beginnings, and phrases that come again."""
    beginning = [(3 + 7 * j) % 64 for j in range(rng.choice([0, 0, 6, 17, 30]))]
    phrases = [[rng.randrange(64) for _ in range(rng.randint(1, 6))] for _ in range(3)]
    return beginning + [t for _ in range(rng.randint(1, 6)) for t in rng.choice(phrases)]


def a_sampling(rng):
    few = dict.fromkeys(rng.sample(range(64), 3), 12.0)  # answers that repeat themselves
    return SamplingParams(
        max_tokens=rng.randint(1, 24),
        temperature=rng.choice([0.0, 0.3, 0.8, 1.3]),
        top_p=rng.choice([1.0, 1.0, 0.9, 0.5]),
        top_k=rng.choice([0, 0, 1, 10]),
        min_p=rng.choice([0.0, 0.0, 0.05]),
        presence_penalty=rng.choice([0.0, 0.0, 0.7, -0.5]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.4]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.2]),
        logit_bias=rng.choice([{}, {1: 2.0, 9: -100.0}, few, few]),
        seed=rng.getrandbits(64),
        stop=rng.choice([(), (), ("a", "1 2"), ("\x07",)]),
        stop_token_ids=rng.choice([(), (), (33,)]),
        include_stop_in_output=rng.random() < 0.3,
        ignore_eos=rng.random() < 0.5,
        num_logprobs=rng.choice([None, 0, 3]),
        prompt_logprobs=rng.choice([None, None, None, 1]),
    )


@functools.cache
def alone(isa, variant, weight_format, block_size, i):
    """Prompt, sampling and outcome of the i-th request of this model."""
    rng = random.Random(i)
    prompt, sampling = a_prompt(rng), a_sampling(rng)
    driver = Driver(
        model_of(isa, variant, weight_format, 1),
        TOKENIZER,
        block_size=block_size,
        num_blocks=128 // block_size,
        enable_prefix_cache=False,
        speculate=Speculate.OFF,
    )
    (outcome,) = driver.run(Request("alone", prompt, sampling))
    return prompt, sampling, outcome


def answer(outcome):
    """All that tells of each token."""
    return [(e.token_id, e.logprob, e.top_logprobs, e.finish_reason) for e in outcome.events]


def a_driver(rng, model, block_size, num_tokens):
    """An engine with room for the longest of the requests, and not always for much more."""
    num_blocks = -(-num_tokens // block_size)
    driver = Driver(
        model,
        TOKENIZER,
        block_size=block_size,
        num_blocks=num_blocks + rng.choice([0, 0, 1, num_blocks // 2, 9 * num_blocks]),
        max_num_batched_tokens=rng.choice([3, 8, 17, 40, 512]),
        max_num_requests=rng.choice([2, 3, 8]),
        enable_prefix_cache=rng.random() < 0.7,
        speculate=rng.choice([Speculate.OFF, *Speculate]),
    )
    price = rng.choice([0.0, 0.02, 0.1])  # of a row: whether to guess is not left to the clock
    driver.engine._speculator.step_cost = SimpleNamespace(
        of=lambda num_rows: 1 + price * num_rows,
        of_a_row=lambda num_rows: price,
        observe=lambda num_rows, seconds: None,
    )
    return driver


def run_mix(isa, seed, happened):
    rng = random.Random(f"mix {seed}")
    kind, block_size = (isa, *rng.choice(MODELS)), rng.choice([2, 4, 16])
    chosen = [
        alone(*kind, block_size, i) for i in rng.sample(range(NUM_REQUESTS), rng.randint(2, 6))
    ]
    num_tokens = max(len(prompt) + sampling.max_tokens for prompt, sampling, _ in chosen)
    driver = a_driver(rng, model_of(*kind, rng.choice([1, 2])), block_size, num_tokens)
    requests, arrivals, cancelled = [], [], {}
    for i, (prompt, sampling, want) in enumerate(chosen):
        num_known = rng.randrange(len(want.token_ids)) if rng.random() < 0.2 else 0
        requests.append(Request(str(i), prompt, sampling, want.token_ids[:num_known]))
        arrivals.append((rng.choice([0, 0, rng.randint(1, 30)]), i))
        if rng.random() < 0.2:
            cancelled[str(i)] = rng.randint(1, 30)
        happened["resumed"] += num_known > 0
    num_known = [len(request.output_token_ids) for request in requests]
    step = 0
    while arrivals or driver.engine.has_work:
        for arrival in [arrival for arrival in arrivals if arrival[0] <= step]:
            arrivals.remove(arrival)
            driver.engine.add(requests[arrival[1]])
        for name in [name for name, when in cancelled.items() if when == step]:
            happened["cancelled"] += driver.engine.cancel(name)
        driver.step()
        step += 1
        assert step < 2000
    for i, (prompt, _, want) in enumerate(chosen):
        outcome = driver.outcomes[str(i)]
        wanted = answer(want)[num_known[i] :]
        if outcome.finish_reason is FinishReason.CANCELLED:
            found = answer(outcome)[:-1]
            assert found == wanted[: len(found)]
            continue
        assert answer(outcome) == wanted
        if not num_known[i]:
            assert outcome.text == want.text
            assert outcome.events[0].prompt_logprobs == want.events[0].prompt_logprobs
        happened["in pieces"] += max(outcome.pieces) < len(prompt)
        happened["prefix hits"] += outcome.events[0].num_cached_tokens > 0
    stats = driver.engine.stats()
    happened["preemptions"] += stats.preemptions_total
    happened["right guesses"] += stats.accepted_tokens_total
    happened["wrong guesses"] += stats.draft_tokens_total - stats.accepted_tokens_total
    happened["mixes"] += 1


WHAT_HAPPENS = {
    *("resumed", "cancelled", "in pieces", "prefix hits", "preemptions"),
    *("right guesses", "wrong guesses"),
}


@pytest.mark.parametrize("hundred", range(NUM_MIXES // 100))
def test_requests_of_a_mix_get_what_they_get_alone(hundred):
    happened = Counter()
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        run_mix(BEST, seed, happened)
    assert all(happened[what] >= 10 for what in WHAT_HAPPENS), happened


@pytest.mark.parametrize("isa", OTHERS)
def test_requests_of_a_mix_get_what_they_get_alone_on_other_instruction_sets(isa):
    happened = Counter()
    for seed in range(NUM_OTHER_MIXES):
        run_mix(isa, seed, happened)
    assert all(happened[what] >= 10 for what in WHAT_HAPPENS), happened
