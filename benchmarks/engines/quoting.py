"""Answers that quote their prompt, with speculation and without, on weights that say nothing.

The model computes every step in full; then the logit of the scripted answer's next token is raised.
So what a step costs is real, and what is quoted is ours to say. One stream. Read `columns.py`.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import columns
import numpy as np

from freehold.engine import Engine, EngineConfig, Request
from freehold.types import SamplingParams, Speculate

NUM_PROMPT, NUM_ANSWER = 512, 160
SPANS = (16, 32)  # tokens of a copied span
SHARES = (0.0, 0.3, 0.6, 0.9)  # of the answer that is copied
RAISED = np.float32(1e6)


class Scripted:
    """A model that says what it is told, at its own pace."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.script: list[int] = []  # by position
        self._positions = np.zeros(0, np.int32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, token_ids: Any, layout: Any, *rest: Any) -> Any:
        self._positions = layout.positions
        return self._model.forward(token_ids, layout, *rest)

    def logits(self, hidden: Any) -> Any:
        """Of one stream these are the last rows: the newest token's and its guesses'."""
        logits = self._model.logits(hidden)
        for row, position in zip(logits, self._positions[-len(logits) :], strict=True):
            if position + 1 < len(self.script):
                row[self.script[position + 1]] = RAISED
        return logits


def script(share: float, seed: object) -> list[int]:
    """A prompt and its answer: spans of the prompt, and between them tokens drawn at random."""
    draw = random.Random(f"{seed} {share}")
    prompt = columns.prompt(NUM_PROMPT, (seed, share, "prompt"))
    answer: list[int] = []
    while len(answer) < NUM_ANSWER:
        span = draw.randint(*SPANS)
        start = draw.randrange(NUM_PROMPT - span)
        if share:
            answer += prompt[start : start + span]
        num_new = round(span * (1 - share) / share) if share else span
        answer += columns.prompt(num_new, (seed, share, len(answer)))
    return prompt + answer[:NUM_ANSWER]


def tokens_per_second(engine: Engine, model: Scripted, wanted: list[int], name: str) -> float:
    """After the first token."""
    model.script = wanted
    sampling = SamplingParams(max_tokens=NUM_ANSWER, temperature=0.0, ignore_eos=True)
    engine.add(Request(name, wanted[:NUM_PROMPT], sampling))
    said: list[int | None] = []
    first = 0.0
    while engine.has_work:
        said += [event.token_id for event in engine.step()]
        first = first or (time.perf_counter() if said else 0.0)
    assert said == wanted[NUM_PROMPT:], "the answer is not the script"
    return (NUM_ANSWER - 1) / (time.perf_counter() - first)


def measure(model: Any, tokenizer: Any, seed: int) -> dict[str, float]:
    """{"off": tokens/s without speculation, share: with it}. Without is run between the others: it
    does the same work whatever is copied."""
    scripted = Scripted(model)
    engines = {
        mode: Engine(scripted, tokenizer, EngineConfig(num_blocks=64, speculate=mode))
        for mode in (Speculate.OFF, Speculate.AUTO)
    }
    for mode, engine in engines.items():
        tokens_per_second(engine, scripted, script(0.6, (seed, mode)), "warm-up")
    found, without = {}, []
    for share in SHARES:
        wanted = script(share, seed)
        without.append(tokens_per_second(engines[Speculate.OFF], scripted, wanted, str(share)))
        found[str(share)] = tokens_per_second(engines[Speculate.AUTO], scripted, wanted, str(share))
    return {"off": statistics.median(without), **found}
