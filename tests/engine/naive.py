"""What the engine must equal: one request, the whole context recomputed for each token.

No paged tricks, no batching, no increments: penalties count from scratch, the text is decoded
whole, stop strings are searched in it character by character.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freehold.engine.random import uniforms
from freehold.ops import BatchLayout
from freehold.types import FinishReason, SamplingParams

BLOCK_SIZE = 4


@dataclass
class Answer:
    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    logprobs: list[float]  # of each token, under the raw logits


def whole_context_logits(model, token_ids):
    """Logits of every position, float32 [n, vocab], over a cache of this context's own."""
    n = len(token_ids)
    num_blocks = -(-n // BLOCK_SIZE)
    layout = BatchLayout(
        positions=np.arange(n, dtype=np.int32),
        slots=np.arange(n, dtype=np.int64),
        query_starts=np.array([0, n], np.int32),
        context_lens=np.array([n], np.int32),
        block_tables=np.arange(num_blocks, dtype=np.int32)[None],
        block_size=BLOCK_SIZE,
    )
    caches = model.make_caches(num_blocks, BLOCK_SIZE)
    hidden = model.forward(np.array(token_ids, np.int32), layout, caches)
    return np.array(model.logits(hidden))


def penalised(row, sampling: SamplingParams, prompt, output):
    """vLLM's definition, token by token."""
    row = row.copy()
    for token, bias in sampling.logit_bias.items():
        row[token] += np.float32(bias)
    for token in set(prompt) | set(output):
        factor = np.float32(sampling.repetition_penalty)
        row[token] = row[token] / factor if row[token] > 0 else row[token] * factor
    for token in set(output):
        row[token] -= np.float32(sampling.frequency_penalty) * np.float32(output.count(token))
        row[token] -= np.float32(sampling.presence_penalty)
    return row


def first_stop(text, stops):
    """(start, end) of the stop string whose end comes first, the longest of those; or None."""
    for end in range(1, len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return end - max(lengths), end
    return None


def naive(model, tokenizer, prompt, sampling: SamplingParams, context=512) -> Answer:
    limit = sampling.max_tokens or context - len(prompt)
    eos = frozenset() if sampling.ignore_eos else tokenizer.eos_token_ids
    output, logprobs = [], []
    while True:
        raw = whole_context_logits(model, [*prompt, *output])[-1:]
        row = penalised(raw[0], sampling, prompt, output)[None]
        position = len(prompt) + len(output)
        (token,) = model.ops.sample(
            row,
            np.array([sampling.temperature], np.float32),
            np.array([sampling.top_k], np.int32),
            np.array([sampling.top_p], np.float32),
            np.array([sampling.min_p], np.float32),
            uniforms(sampling.seed, position, 1) * (sampling.temperature > 0),
        )
        token = int(token)
        output.append(token)
        logprobs.append(float(model.ops.logprobs(raw, np.array([token], np.int32), 0)[0][0]))
        is_stop = token in eos or token in sampling.stop_token_ids
        shown = output[:-1] if is_stop and not sampling.include_stop_in_output else output
        text = tokenizer.decode(shown)
        at_end = is_stop or len(output) == limit
        # A character still unfinished is not yet text, unless this is the end.
        certain = text if at_end else _finished_characters(tokenizer, shown)
        if (found := first_stop(certain, sampling.stop)) is not None:
            cut = found[1] if sampling.include_stop_in_output else found[0]
            return Answer(output, text[:cut], FinishReason.STOP, logprobs)
        if at_end:
            reason = FinishReason.STOP if is_stop else FinishReason.LENGTH
            return Answer(output, text, reason, logprobs)


def _finished_characters(tokenizer, ids):
    stream = tokenizer.new_stream()
    return "".join(map(stream.push, ids))
