"""Rounds into medians, medians into fractions of the machine's limits, all of it into a table."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import chart

PEAK_OF = {"int4": "int8", "int8": "int8", "bf16": "bf16"}  # INT4 is multiplied as INT8


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for columns in rounds for key in columns)
    return {key: statistics.median(r[key] for r in rounds if key in r) for key in keys}


def of_rounds(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """A column that only some rounds have is the median of those."""
    ttft: dict[str, list[float]] = {}
    for columns in rounds:
        for streams, seconds in columns["ttft"].items():
            ttft.setdefault(streams, []).extend(seconds)
    return {
        "prompt": medians([r["prompt"] for r in rounds]),
        "decode": medians([r["decode"] for r in rounds]),
        "ttft": {
            streams: {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99)}
            for streams, seconds in ttft.items()
        },
        "quoting": medians([r.get("quoting", {}) for r in rounds]),
        "first_start_seconds": rounds[0]["start_seconds"],
        "start_seconds": min(r["start_seconds"] for r in rounds[1:] or rounds),
        "pss_bytes": rounds[-1]["pss_bytes"],
        "rss_bytes": rounds[-1]["rss_bytes"],
        "facts": rounds[-1]["facts"],
    }


def fractions(result: dict[str, Any], format: str) -> dict[str, dict[str, float]]:
    """{engine: parts of the machine's limits}: bytes read by decode of one stream over what a
    plain read gives, operations of a 512-token prompt over the peak of their kind."""
    limits, found = result["limits"], {}
    operations = result["engines"]["freehold"]["facts"]["operations_per_prompt_token"]
    peak = limits[f"{PEAK_OF[format]}_operations_per_second"]
    for name, columns in result["engines"].items():
        parts = found.setdefault(name, {})
        if (step_bytes := columns["facts"].get("step_bytes")) and "1" in columns["decode"]:
            parts["decode"] = columns["decode"]["1"] * step_bytes / limits["read_bytes_per_second"]
        if "512" in columns["prompt"] and peak:
            parts["prompt"] = columns["prompt"]["512"] * operations / peak
    return found


def memory_ratio(columns: dict[str, Any]) -> float | None:
    """Resident memory over packed weights and cache."""
    facts = columns["facts"]
    if "cache_bytes" not in facts:
        return None
    return float(columns["pss_bytes"] / (facts["weight_bytes"] + facts["cache_bytes"]))


def one_line(columns: dict[str, Any]) -> str:
    parts = [f"prompt {n}: {rate:.0f}" for n, rate in columns["prompt"].items()]
    parts += [f"{n} streams: {rate:.0f}" for n, rate in columns["decode"].items()]
    parts += [f"TTFT {n}: {quantile(s, 0.5):.2f} s" for n, s in columns["ttft"].items()]
    return ", ".join(parts)


def rows_of(case: str, result: dict[str, Any]) -> list[list[str]]:
    """One row an engine; the head is `HEAD`."""
    parts = fractions(result, case.split()[1])
    rows = []
    for name, c in result["engines"].items():
        ttft = [c["ttft"].get(n) for n in ("1", "8", "32")]
        ratio = memory_ratio(c)
        rows.append(
            [case, name]
            + [_number(c["prompt"].get(n)) for n in ("128", "512", "4096")]
            + [_percent(parts[name].get("prompt"))]
            + [_number(c["decode"].get(n)) for n in ("1", "4", "8", "16", "32", "64")]
            + [_percent(parts[name].get("decode"))]
            + ["–" if t is None else f"{t['p50']:.2f} / {t['p99']:.2f}" for t in ttft]
            + [f"{c['pss_bytes'] / 2**30:.2f}" + (f" ({ratio:.2f})" if ratio else "")]
            + [f"{c['first_start_seconds']:.1f} / {c['start_seconds']:.1f}"]
        )
    return rows


HEAD = (
    ["shape, format", "engine"]
    + [f"prompt {n}" for n in (128, 512, 4096)]
    + ["of peak"]
    + [f"decode {n}" for n in (1, 4, 8, 16, 32, 64)]
    + ["of memory"]
    + [f"TTFT {n}" for n in (1, 8, 32)]
    + ["PSS GiB (ratio)", "start s"]
)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def table(record: dict[str, Any]) -> str:
    rows = [row for case, result in record["results"].items() for row in rows_of(case, result)]
    return markdown(HEAD, rows)


def write(record: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "engine.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "engine.svg").write_text(chart.engine(record))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
