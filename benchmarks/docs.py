"""Puts results/*.json on docs/performance.md, between its markers; the words around them are kept.

    python benchmarks/docs.py [--check]

`--check`: write nothing, exit 1 if the page differs from the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matmul
import quality
import serve
import summary
import targets

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
QWEN = "qwen2-1.5b int4"


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _limits(record: dict[str, Any]) -> str:
    limits = next(iter(record["results"].values()))["limits"]
    lines = [f"{record['machine']}.", ""]
    for key, value in limits.items():
        what, unit = key.removesuffix("_per_second").rsplit("_", 1)
        name = "plain read of memory" if what == "read" else f"{what}, multiply and add"
        lines.append(f"- {name}: {value / 1e9:,.0f} G{unit}/s")
    return "\n".join(lines)


def _engine(record: dict[str, Any]) -> str:
    speeds, waits = summary.tables(record["results"])
    loads = [result["load_average_before"] for result in record["results"].values()]
    rounds = [result["rounds"] for result in record["results"].values()]
    return (
        f"Medians of {min(rounds)} or more interleaved rounds; load average before at most "
        f"{max(loads):.1f}.\n\n{speeds}\n\n{waits}\n\n![bars](../benchmarks/results/engine.svg)"
    )


def _targets(record: dict[str, Any]) -> str:
    rows = []
    for target, value in targets.rows(record["results"]):
        bound = f"{'≤' if target.is_most else '≥'} {target.bound:g}"
        is_reached = value is not None and targets.is_reached(target, value)
        rows.append(
            [
                target.case,
                target.what + (", over llama.cpp's" if target.needs_peer else ""),
                bound,
                "not measured" if value is None else f"{value:.2f}",
                "reached" if is_reached else "**short**",
            ]
        )
    return summary.markdown(["shape, format", "what", "target", "measured", ""], rows)


def _quoting(record: dict[str, Any]) -> str | None:
    quoting = record["results"].get(QWEN, {}).get("engines", {}).get("freehold", {}).get("quoting")
    return summary.quoting_table(quoting) if quoting else None


def _serve(record: dict[str, Any]) -> str:
    figures, short = serve.compare(record["results"])
    lines = [*(f"- {line}" for line in figures), *(f"- falls short: {line}" for line in short)]
    return serve.table(record) + "\n\n" + "\n".join(lines)


def _matmul(record: dict[str, Any]) -> str:
    figures, short = matmul.compare(record["results"])
    lines = [*(f"- {line}" for line in figures), *(f"- falls short: {line}" for line in short)]
    return matmul.table(record["results"]) + "\n\n" + "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str | None]]] = {
    "limits": ("engine", _limits),
    "engine": ("engine", _engine),
    "targets": ("engine", _targets),
    "quoting": ("engine", _quoting),
    "serve": ("serve", _serve),
    "matmul": ("matmul", _matmul),
    "quality": ("quality", quality.table),
}


def page(text: str) -> str:
    for section, (name, write) in SECTIONS.items():
        record = _result(name)
        body = (write(record) if record else None) or "Not measured."
        marked = re.compile(rf"(<!-- {section} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = marked.subn(lambda m, b=body: m[1] + b + m[2], text)
        assert count == 1, f"docs/performance.md has no place for {section}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    before = PAGE.read_text()
    after = page(before)
    if args.check and before != after:
        sys.exit("docs/performance.md differs from benchmarks/results: run benchmarks/docs.py")
    PAGE.write_text(after)


if __name__ == "__main__":
    main()
