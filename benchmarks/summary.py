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


def _speed_row(case: str, name: str, c: dict[str, Any], parts: dict[str, float]) -> list[str]:
    return [
        case,
        name,
        *(_number(c["prompt"].get(n)) for n in ("128", "512", "4096")),
        _percent(parts.get("prompt")),
        *(_number(c["decode"].get(n)) for n in ("1", "4", "8", "16", "32", "64")),
        _percent(parts.get("decode")),
    ]


def _wait_row(case: str, name: str, c: dict[str, Any], parts: dict[str, float]) -> list[str]:
    waits = [c["ttft"].get(n) for n in ("1", "8", "32")]
    ratio = memory_ratio(c)
    return [
        case,
        name,
        *("–" if t is None else f"{t['p50']:.2f} / {t['p99']:.2f}" for t in waits),
        f"{c['pss_bytes'] / 2**30:.2f}" + (f" ({ratio:.2f})" if ratio else ""),
        f"{c['first_start_seconds']:.1f} / {c['start_seconds']:.1f}",
    ]


SPEED_HEAD = ["shape, format", "engine"]
SPEED_HEAD += [f"prompt {n}" for n in (128, 512, 4096)] + ["of peak"]
SPEED_HEAD += [f"decode {n}" for n in (1, 4, 8, 16, 32, 64)] + ["of memory"]
WAIT_HEAD = ["shape, format", "engine", *(f"TTFT {n}, s" for n in (1, 8, 32))]
WAIT_HEAD += ["PSS, GiB (ratio)", "start first / again, s"]
QUOTING_HEAD = ["of the answer copied", "tokens/s", "over speculation off", "at most possible"]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def tables(results: dict[str, Any]) -> tuple[str, str]:
    """Tokens a second; and waits, memory, start."""
    speeds, waits = [], []
    for case, result in results.items():
        parts = fractions(result, case.split()[1])
        for name, columns in result["engines"].items():
            speeds.append(_speed_row(case, name, columns, parts[name]))
            waits.append(_wait_row(case, name, columns, parts[name]))
    return markdown(SPEED_HEAD, speeds), markdown(WAIT_HEAD, waits)


def quoting_table(quoting: dict[str, float]) -> str:
    """{share: tokens/s with speculation, "off": without}."""
    rows = [
        [
            f"{float(share):.0%}",
            f"{rate:.1f}",
            f"{rate / quoting['off']:.2f}",
            f"{1 / (1 - float(share)):.2f}",
        ]
        for share, rate in quoting.items()
        if share != "off"
    ]
    return markdown(QUOTING_HEAD, rows)


def write(record: dict[str, Any], folder: Path) -> None:
    """Cases measured before on the same machine and not now stay."""
    folder.mkdir(exist_ok=True)
    path = folder / "engine.json"
    if path.exists() and (kept := json.loads(path.read_text()))["machine"] == record["machine"]:
        record = record | {"results": kept["results"] | record["results"]}
    path.write_text(json.dumps(record, indent=1) + "\n")
    (folder / "engine.svg").write_text(chart.engine(record))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
