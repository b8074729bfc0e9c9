"""One matrix product, from the textbook's triple loop to ours: what each step of the ladder buys.

    python benchmarks/matmul.py [--check] [--rounds N]

x [rows, 1536] @ w [1536, 8960], at 1, 16, 128 and 512 rows. Rungs: three plain C++ loops on one
core (`ladder.cpp`: textbook order; reordered; in pieces that stay in fast memory), the pieces with
vector registers and all cores, NumPy (BLAS), oneDNN through torch (float32, BF16, INT8), ours
(float32, BF16, INT8, INT4). As many weight matrices are gone through as no cache holds. Plain loops
take at most 16 rows and are scaled: they cost the same for each. Writes results/matmul.json.
`--check`: exit 1 if staging through fast memory buys less than 1.4 x, or if our INT4 is behind
oneDNN's BF16 at any number of rows.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import machine
from freehold.ops.native import NativeOps
from freehold.types import WeightFormat
from summary import markdown

RESULTS = Path(__file__).parent / "results"
K, N = 1536, 8960
ROWS = (1, 16, 128, 512)
MAX_PLAIN_ROWS = 16
MIN_WEIGHT_BYTES = 128 << 20  # in all copies of a matrix: no cache holds them
SECONDS = 0.2  # a rung is repeated for about this long in each round


@dataclass(frozen=True)
class Rung:
    name: str
    kind: str  # of which peak it takes a part
    weight_bytes: int
    run: Callable[[int], None]  # one product of so many rows
    max_rows: int = 1 << 30
    num_cores: int = 0  # 0: all


def plain_rungs(w: np.ndarray, x: np.ndarray) -> Iterator[Rung]:
    """`w` [K, N]; one copy is far beyond the caches."""
    library, y = machine.library(), np.empty((max(ROWS), N), np.float32)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, w, y)]

    def call(name: str, *more: int) -> Callable[[int], None]:
        function = getattr(library, name)
        return lambda rows: function(
            *pointers,
            *(ctypes.c_int64(size) for size in (rows, N, K)),
            *(ctypes.c_int(value) for value in more),
        )

    names = {"textbook": "textbook", "reordered": "reordered", "blocked": "in pieces"}
    for function, name in names.items():
        yield Rung(f"{name}, 1 core", "float32", w.nbytes, call(function), MAX_PLAIN_ROWS, 1)
    simd = call("simd", machine.num_threads())
    yield Rung("in pieces, vectors, all cores", "float32", w.nbytes, simd)


def numpy_rung(w: np.ndarray, x: np.ndarray) -> Iterator[Rung]:
    weights = itertools.cycle([w.copy() for _ in range(-(-MIN_WEIGHT_BYTES // w.nbytes))])
    yield Rung(
        "NumPy (BLAS)", "float32", w.nbytes, lambda rows: (x[:rows] @ next(weights), None)[1]
    )


def torch_rungs(w: np.ndarray, x: np.ndarray) -> Iterator[Rung]:
    """oneDNN; INT8 is the integer product alone, without rounding activations or scaling sums."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: oneDNN is left out", file=sys.stderr)
        return
    torch.set_num_threads(machine.num_threads())
    by_rows = torch.from_numpy(np.ascontiguousarray(w.T))  # [N, K], as a linear holds it
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        weight, inputs = by_rows.to(dtype), torch.from_numpy(x).to(dtype)
        size = weight.nbytes
        weights = itertools.cycle([weight.clone() for _ in range(-(-MIN_WEIGHT_BYTES // size))])
        yield Rung(
            f"oneDNN {name}",
            name,
            size,
            lambda rows, i=inputs, w=weights: (torch.nn.functional.linear(i[:rows], next(w)), None)[
                1
            ],
        )
    integers = torch.ones((N, K), dtype=torch.int8)
    small = torch.ones((max(ROWS), K), dtype=torch.int8)
    copies = itertools.cycle([integers.clone() for _ in range(-(-MIN_WEIGHT_BYTES // (N * K)))])
    yield Rung(
        "oneDNN int8",
        "int8",
        N * K,
        lambda rows: (torch._int_mm(small[:rows], next(copies).t()), None)[1],
    )


def our_rungs(w: np.ndarray, x: np.ndarray) -> Iterator[Rung]:
    ops, by_rows = NativeOps(), np.ascontiguousarray(w.T)
    for format in WeightFormat:
        weight = ops.weight(by_rows, format)
        size = weight.num_bytes
        copies = [ops.weight(by_rows, format) for _ in range(-(-MIN_WEIGHT_BYTES // size))]
        kind = "int8" if format is WeightFormat.INT4 else format.value
        weights = itertools.cycle(copies)
        yield Rung(
            f"ours {format.value}",
            kind,
            size,
            lambda rows, w=weights: (ops.linear(x[:rows], next(w)), None)[1],
        )


def seconds_of(rung: Rung, rows: int) -> float:
    """The best of some runs, for `rows` rows."""
    taken = min(rows, rung.max_rows)
    runs: list[float] = []
    while sum(runs) < SECONDS or len(runs) < 3:
        started = time.perf_counter()
        rung.run(taken)
        runs.append(time.perf_counter() - started)
        if runs[0] > 5 * SECONDS:
            break
    return min(runs) * rows / taken


def measure(rungs: list[Rung], num_rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """{rung: {rows: figures}}, medians over interleaved rounds."""
    seconds: dict[tuple[str, int], list[float]] = {}
    limits = []
    for _ in range(num_rounds):
        limits.append(machine.limits())
        for rows, rung in itertools.product(ROWS, rungs):
            seconds.setdefault((rung.name, rows), []).append(seconds_of(rung, rows))
    limit = {key: statistics.median(found[key] for found in limits) for key in limits[0]}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for rung, rows in itertools.product(rungs, ROWS):
        median = statistics.median(seconds[rung.name, rows])
        speed = 2 * rows * K * N / median
        peak = limit[f"{rung.kind}_operations_per_second"]
        table.setdefault(rung.name, {})[str(rows)] = {
            "milliseconds": 1e3 * median,
            "gigaoperations_per_second": speed / 1e9,
            "of_peak": speed / peak if peak else 0.0,
            "of_read_speed": rung.weight_bytes / median / limit["read_bytes_per_second"],
        }
    return table


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """GOP/s, in brackets the part of the peak of its kind; for one row that of a plain read."""
    head = ["GOP/s (part of the limit)", *(f"{rows} rows" for rows in ROWS)]
    rows_of_table = []
    for name, by_rows in results.items():
        cells = [name]
        for rows, figures in by_rows.items():
            part = figures["of_read_speed" if rows == "1" else "of_peak"]
            cells.append(f"{figures['gigaoperations_per_second']:.1f} ({100 * part:.0f} %)")
        rows_of_table.append(cells)
    return markdown(head, rows_of_table)


def compare(results: dict[str, dict[str, dict[str, float]]]) -> tuple[list[str], list[str]]:
    def speed(name: str, rows: int) -> float:
        return results[name][str(rows)]["gigaoperations_per_second"]

    short: list[str] = []
    figures = []
    staged = speed("in pieces, 1 core", 128) / speed("reordered, 1 core", 128)
    both = speed("in pieces, 1 core", 128) / speed("textbook, 1 core", 128)
    figures.append(f"128 rows: reordering and staging {both:.2f}x, of it staging {staged:.2f}x")
    if both < 1.4:
        short.append(f"reordering and staging buy {both:.2f}x, at least 1.4x")
    for rows in ROWS:
        best_float = max(speed(n, rows) for n in results if n.startswith(("NumPy", "oneDNN")))
        figures.append(f"{rows} rows: our int4 {speed('ours int4', rows) / best_float:.2f}x")
        if "oneDNN bf16" in results and speed("ours int4", rows) < speed("oneDNN bf16", rows):
            short.append(f"our int4 is behind oneDNN's bf16 at {rows} rows")
    return figures, short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    load_average = os.getloadavg()[0]
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((K, N), np.float32), rng.standard_normal((512, K), np.float32)
    rungs = [*plain_rungs(w, x), *numpy_rung(w, x), *torch_rungs(w, x), *our_rungs(w, x)]
    results = measure(rungs, args.rounds)
    record = {"machine": machine.name(), "rounds": args.rounds, "load_average_before": load_average}
    record["results"] = results
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "matmul.json").write_text(json.dumps(record, indent=1) + "\n")
    figures, short = compare(results)
    print(table(results), file=sys.stderr)
    for line in short:
        print(f"short: {line}")
    print(" | ".join(figures))
    if args.check and short:
        sys.exit(1)


if __name__ == "__main__":
    main()
