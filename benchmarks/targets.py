"""What the engine must reach beside llama.cpp in the same run, and what falls short of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import summary

Columns = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """`measure` gives a figure of ours, or of ours over llama.cpp's; None: not measured."""

    case: str
    what: str
    measure: Callable[[Columns, Columns, dict[str, float]], float | None]
    bound: float
    is_most: bool = False  # the bound is what it may be at most
    needs_peer: bool = True


def _ratio(kind: str, n: int) -> Callable[[Columns, Columns, dict[str, float]], float | None]:
    def over(ours: Columns, peer: Columns, _: dict[str, float]) -> float | None:
        if str(n) not in ours[kind] or str(n) not in peer.get(kind, {}):
            return None
        mine, theirs = ours[kind][str(n)], peer[kind][str(n)]
        return float(mine["p50"] / theirs["p50"] if kind == "ttft" else mine / theirs)

    return over


def _gain(ours: Columns, share: str) -> float | None:
    quoting = ours["quoting"]
    return quoting[share] / quoting["off"] if share in quoting else None


QWEN, LITE = "qwen2-1.5b int4", "deepseek-v2-lite-6l int4"
TARGETS = [
    Target(QWEN, "prompt 512", _ratio("prompt", 512), 5),
    Target(QWEN, "decode 1", _ratio("decode", 1), 1.25),
    Target(
        QWEN, "decode 1, of the memory limit", lambda o, p, f: f.get("decode"), 0.85, False, False
    ),
    Target(QWEN, "decode 8", _ratio("decode", 8), 2),
    Target(QWEN, "decode 16", _ratio("decode", 16), 3),
    Target(QWEN, "decode 32", _ratio("decode", 32), 4),
    Target(
        QWEN,
        "TTFT 1, seconds",
        lambda o, p, f: o["ttft"].get("1", {}).get("p50"),
        0.2,
        True,
        False,
    ),
    Target(QWEN, "TTFT 1", _ratio("ttft", 1), 0.25, True),
    Target(
        QWEN,
        "60 % of the answer copied, speculation on over off",
        lambda o, p, f: _gain(o, "0.6"),
        2,
        False,
        False,
    ),
    Target(
        QWEN,
        "nothing copied, speculation on over off",
        lambda o, p, f: _gain(o, "0.0"),
        0.97,
        False,
        False,
    ),
    Target(QWEN, "second start, seconds", lambda o, p, f: o["start_seconds"], 2, True, False),
    Target("qwen2-1.5b int8", "prompt 512", _ratio("prompt", 512), 4),
    Target("qwen2-1.5b int8", "decode 1", _ratio("decode", 1), 1.1),
    Target("qwen2-1.5b bf16", "prompt 512", _ratio("prompt", 512), 4),
    Target("qwen2-1.5b bf16", "decode 1", _ratio("decode", 1), 1.1),
    Target(LITE, "prompt 512", _ratio("prompt", 512), 3),
    Target(LITE, "decode 1", _ratio("decode", 1), 1.2),
    Target(LITE, "decode 16", _ratio("decode", 16), 2),
    Target(
        QWEN,
        "memory over weights and cache",
        lambda o, p, f: summary.memory_ratio(o),
        1.15,
        True,
        False,
    ),
    Target(
        LITE,
        "memory over weights and cache",
        lambda o, p, f: summary.memory_ratio(o),
        1.15,
        True,
        False,
    ),
]


def rows(results: dict[str, Any]) -> list[tuple[Target, float | None]]:
    """Every target of the cases that were run."""
    found = []
    for target in TARGETS:
        if (result := results.get(target.case)) is None:
            continue
        ours = result["engines"]["freehold"]
        peer = result["engines"].get("llama.cpp", {})
        parts = summary.fractions(result, target.case.split()[1])["freehold"]
        found.append((target, target.measure(ours, peer, parts)))
    return found


def is_reached(target: Target, value: float) -> bool:
    return value <= target.bound if target.is_most else value >= target.bound


def compare(results: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The figures, and what falls short by name: a missed target, one that could not be measured,
    and any column in which a peer is ahead."""
    figures, short = [], []
    for target, value in rows(results):
        bound = f"{'at most' if target.is_most else 'at least'} {target.bound:g}"
        unit = "x of llama.cpp" if target.needs_peer else ""
        if value is None:
            short.append(f"{target.case}: {target.what} was not measured ({bound}{unit})")
            continue
        figures.append(f"{target.case}: {target.what} {value:.2f}{unit}")
        if not is_reached(target, value):
            short.append(f"{target.case}: {target.what} is {value:.2f}{unit}, {bound}")
    return figures, short + list(_behind(results))


def _behind(results: dict[str, Any]) -> Any:
    for case, result in results.items():
        ours = result["engines"]["freehold"]
        for name, peer in result["engines"].items():
            for kind in ("prompt", "decode"):
                for n, theirs in peer[kind].items():
                    if n in ours[kind] and ours[kind][n] < theirs:
                        yield (
                            f"{case}: {name} is ahead at {kind} {n}: "
                            f"{theirs:.1f} over our {ours[kind][n]:.1f}"
                        )
            for n, theirs in peer["ttft"].items():
                if n in ours["ttft"] and ours["ttft"][n]["p50"] > theirs["p50"]:
                    yield f"{case}: {name} answers sooner at {n} streams"
