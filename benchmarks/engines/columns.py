"""What `engine.py` measures of one engine in one process, the same for every engine.

Runs in the peer's Python, so it uses the standard library alone. An engine is a `Driver`; a plan
says which columns this round wants. Times are seconds since all prompts were handed in.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

NUM_PROMPT_TOKENS = 100  # of each stream
NUM_DECODE_TOKENS = 32  # measured of each stream, once all of them are decoding
FIRST_TOKEN, NUM_TOKENS = 300, 10_000  # ids that prompts draw from: none of them special


class Driver(Protocol):
    can_prepare: bool  # keys of prompts can be there before the streams start

    def generate(
        self, prompts: list[list[int]], num_tokens: int, is_prepared: bool
    ) -> list[list[float]]:
        """The time of each token of each stream, `num_tokens` at least. `is_prepared`: the prompts'
        keys are computed before the clock starts, where the engine can; it may use the first
        prompt's for all."""
        ...

    def quoting(self, seed: int) -> dict[str, float]:
        """Tokens a second by the copied share of the answer; "off" without speculation."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the engine knows of itself: bytes of weights and cache, settings."""
        ...


def prompt(length: int, seed: object) -> list[int]:
    draw = random.Random(str(seed))
    return [FIRST_TOKEN + draw.randrange(NUM_TOKENS) for _ in range(length)]


def decode_rate(times: list[list[float]]) -> float:
    """Tokens a second of all streams together, from when all decode until the first has ended."""
    start, end = max(t[0] for t in times), min(t[-1] for t in times)
    assert start < end, "the first stream ended before the last began"
    return sum(start < moment <= end for t in times for moment in t) / (end - start)


def measure(driver: Driver, plan: dict[str, Any]) -> dict[str, Any]:
    seed = plan["seed"]
    driver.generate([prompt(64, (seed, "warm-up"))], 4, False)
    columns: dict[str, Any] = {"prompt": {}, "decode": {}, "ttft": {}}
    for length in plan["prompts"]:
        seconds = [
            driver.generate([prompt(length, (seed, length, i))], 1, False)[0][0]
            for i in range(2 if length <= 512 else 1)
        ]
        columns["prompt"][str(length)] = length / min(seconds)
    for num_streams in plan["ttft"]:
        prompts = [
            prompt(NUM_PROMPT_TOKENS, (seed, num_streams, "ttft", i)) for i in range(num_streams)
        ]
        times = driver.generate(prompts, 8, False)
        columns["ttft"][str(num_streams)] = sorted(t[0] for t in times)
    # Unprepared, the first streams decode while the last prompts are computed.
    for num_streams in plan["streams"]:
        prompts = [prompt(NUM_PROMPT_TOKENS, (seed, num_streams, i)) for i in range(num_streams)]
        num_lead = 0 if driver.can_prepare else num_streams * NUM_PROMPT_TOKENS // 512
        times = driver.generate(prompts, 1 + num_lead + NUM_DECODE_TOKENS, True)
        columns["decode"][str(num_streams)] = decode_rate(times)
    if plan.get("quoting"):
        columns["quoting"] = driver.quoting(seed)
    return columns


def resident_bytes() -> dict[str, int]:
    """PSS counts a page that several processes map once, divided among them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {
        "pss_bytes": fields["Pss"],
        "rss_bytes": fields["Rss"],
        "pss_of_files_bytes": fields["Pss_File"],
    }


def main(load: Callable[[dict[str, Any]], Driver]) -> None:
    """A process of one engine: its plan on standard input, its columns on standard output."""
    plan = json.load(sys.stdin)
    driver = load(plan)
    columns: dict[str, Any] = {"start_seconds": time.time() - plan["spawned"]}
    columns |= measure(driver, plan)
    columns |= resident_bytes()
    columns["facts"] = driver.facts()
    print(json.dumps(columns))
