"""How fast an engine is on this machine: prompts, streams at once, the wait for a first token.

Drives `Engine.step` with random prompts. Knows no peer and no other machine (benchmarks/ does), and
no terminal. Read `engine.py` first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from freehold.engine.engine import Engine
from freehold.engine.request import Request
from freehold.types import SamplingParams

NUM_PROMPT_TOKENS = 100  # of each stream
NUM_DECODE_TOKENS = 32  # timed of each stream, once all of them are decoding


@dataclass(frozen=True, slots=True)
class StreamSpeed:
    num_streams: int
    ttft_p50_seconds: float  # all prompts come at once
    ttft_max_seconds: float
    tokens_per_second: float  # of all together


class Speedometer:
    """Nothing else may run on the engine meanwhile."""

    def __init__(self, engine: Engine, vocab_size: int) -> None:
        self._engine = engine
        self._vocab_size = vocab_size
        self._random = random.Random(0)
        self._names = (f"speed-{i}" for i in range(1 << 30))
        self._run(1, 16, 4)  # the first step makes buffers and tables

    def prompt_tokens_per_second(self, num_tokens: int) -> float:
        """The better of two prompts."""
        return num_tokens / min(self._run(1, num_tokens, 1)[0][0] for _ in range(2))

    def streams(self, num_streams: int) -> StreamSpeed:
        times = self._run(num_streams, NUM_PROMPT_TOKENS, NUM_DECODE_TOKENS)
        firsts = sorted(stream[0] for stream in times)
        # Early streams decode while the last prompts are computed: that is not counted.
        start, end = firsts[-1], max(stream[-1] for stream in times)
        num_tokens = sum(moment > start for stream in times for moment in stream)
        return StreamSpeed(
            num_streams, firsts[len(firsts) // 2], firsts[-1], num_tokens / (end - start)
        )

    def fits(self, num_tokens: int) -> bool:
        return num_tokens < self._engine.max_model_len

    def _run(self, num_streams: int, num_prompt: int, num_output: int) -> list[list[float]]:
        """When each token of each stream came, at least `num_output` of each."""
        sampling = SamplingParams(temperature=0.0, ignore_eos=True)
        times: dict[str, list[float]] = {}
        started = time.perf_counter()
        for name in self._take(num_streams):
            times[name] = []
            self._engine.add(Request(name, self._prompt(num_prompt), sampling))
        while min(map(len, times.values())) < num_output:
            for event in self._engine.step():
                times[event.request_id].append(time.perf_counter() - started)
        for name in times:
            self._engine.discard(name)
        return list(times.values())

    def _take(self, count: int) -> Iterator[str]:
        return (next(self._names) for _ in range(count))

    def _prompt(self, length: int) -> list[int]:
        return [self._random.randrange(self._vocab_size) for _ in range(length)]


def speeds(
    meter: Speedometer, prompts: Collection[int], streams: Collection[int]
) -> tuple[dict[int, float], list[StreamSpeed]]:
    """Prompts too long for the model are left out."""
    rates = {n: meter.prompt_tokens_per_second(n) for n in prompts if meter.fits(n)}
    return rates, [meter.streams(n) for n in streams]
