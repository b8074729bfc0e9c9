"""How near the native kernels come to this machine's memory: products and whole steps of the
Qwen2-1.5B shape, by weight format and number of rows.

    python benchmarks/kernels.py [--threads N] [--isa NAME] [--check]

Weights are random; layers are many enough that none stays in cache. A step is every operation of
`model/llama.py` for 28 layers and the head, on contexts of 512. `--check` fails when one row of
INT4 reads its weights at less than 70 % of the speed of a plain read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from freehold.ops import BatchLayout
from freehold.ops.native import NativeOps
from freehold.types import WeightFormat

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCAB = 1536, 8960, 12, 2, 128, 28, 151936
SHAPES = [
    ((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
    (HIDDEN, HIDDEN),
    (2 * INNER, HIDDEN),
    (HIDDEN, INNER),
]
CONTEXT, BLOCK_SIZE = 512, 16


def best_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Step:
    """The operations of one step over `layers` layers; results are thrown away."""

    def __init__(self, ops: NativeOps, format: WeightFormat, layers: int) -> None:
        rng = np.random.default_rng(0)
        matrices = [rng.standard_normal(shape, np.float32) for shape in SHAPES]
        self.ops = ops
        self.layers = [[ops.weight(matrix, format) for matrix in matrices] for _ in range(layers)]
        self.layer_bytes = sum(weight.num_bytes for weight in self.layers[0])
        head = WeightFormat.BF16 if format is WeightFormat.BF16 else WeightFormat.INT8
        self.head = ops.weight(rng.standard_normal((VOCAB, HIDDEN), np.float32), head)
        self.norm = np.ones(HIDDEN, np.float32)
        self.cos, self.sin = rng.standard_normal((2, CONTEXT, HEAD_DIM // 2), np.float32)

    def linears(self, rows: int) -> None:
        inputs = [np.ones((rows, k), np.float32) for _, k in SHAPES]
        for layer in self.layers:
            for x, weight in zip(inputs, layer, strict=True):
                self.ops.linear(x, weight)

    def batch(self, rows: int) -> tuple[BatchLayout, list[object]]:
        blocks = CONTEXT // BLOCK_SIZE
        tables = np.arange(rows * blocks, dtype=np.int32).reshape(rows, blocks)
        layout = BatchLayout(
            positions=np.full(rows, CONTEXT - 1, np.int32),
            slots=(tables[:, -1].astype(np.int64) + 1) * BLOCK_SIZE - 1,
            query_starts=np.arange(rows + 1, dtype=np.int32),
            context_lens=np.full(rows, CONTEXT, np.int32),
            block_tables=tables,
            block_size=BLOCK_SIZE,
        )
        return layout, [self.cache(rows * CONTEXT) for _ in self.layers]

    def cache(self, num_keys: int) -> object:
        """A cache all of whose keys were written: untouched pages would be read from nowhere."""
        keys = np.random.default_rng(1).standard_normal((num_keys, KV_HEADS, HEAD_DIM), np.float32)
        cache = self.ops.grouped_cache(num_keys // BLOCK_SIZE, BLOCK_SIZE, KV_HEADS, HEAD_DIM)
        first_tokens = BatchLayout(  # as many requests of one token, which attend to little
            positions=np.zeros(num_keys, np.int32),
            slots=np.arange(num_keys, dtype=np.int64),
            query_starts=np.arange(num_keys + 1, dtype=np.int32),
            context_lens=np.ones(num_keys, np.int32),
            block_tables=np.arange(num_keys, dtype=np.int32)[:, None] // BLOCK_SIZE,
            block_size=BLOCK_SIZE,
        )
        self.ops.grouped_attention(keys, keys, keys, cache, first_tokens, 1.0)
        return cache

    def whole(self, rows: int, layout: BatchLayout, caches: list[object]) -> None:
        ops, x = self.ops, np.ones((rows, HIDDEN), np.float32)
        for (qkv, out, gate_up, down), cache in zip(self.layers, caches, strict=True):
            joined = ops.linear(ops.rms_norm(x, self.norm, 1e-6), qkv)
            heads = joined.reshape(rows, HEADS + 2 * KV_HEADS, HEAD_DIM)
            rotated = ops.rope(heads[:, : HEADS + KV_HEADS], layout.positions, self.cos, self.sin)
            q, k, v = rotated[:, :HEADS], rotated[:, HEADS:], heads[:, HEADS + KV_HEADS :]
            mixed = ops.grouped_attention(q, k, v, cache, layout, 0.088)
            x = x + ops.linear(mixed.reshape(rows, HIDDEN), out)
            inner = ops.gated_linear(ops.rms_norm(x, self.norm, 1e-6), gate_up)
            x = x + ops.linear(inner, down)
        logits = ops.linear(ops.rms_norm(x, self.norm, 1e-6), self.head)
        zeros = np.zeros(rows, np.float32)
        ops.sample(logits, zeros, zeros.astype(np.int32), zeros + 1, zeros, zeros.astype(float))


def measure(ops: NativeOps, format: WeightFormat) -> list[dict[str, float]]:
    step, rows_of_table = Step(ops, format, LAYERS), []
    peak = ops.peak_operations_per_second(format)
    for rows in (1, 4, 8, 16, 32, 64):
        before = ops.read_bytes_per_second()  # memory is shared and its speed drifts: read beside
        linear_seconds = best_seconds(lambda rows=rows: step.linears(rows), 5)
        read_speed = max(before, ops.read_bytes_per_second())
        layout, caches = step.batch(rows)
        step_seconds = best_seconds(lambda r=rows, b=(layout, caches): step.whole(r, *b), 3)
        speed = step.layer_bytes * LAYERS / linear_seconds
        operations = 2 * rows * LAYERS * sum(n * k for n, k in SHAPES)
        rows_of_table.append(
            {
                "rows": rows,
                "linears_ms": linear_seconds * 1e3,
                "weights_gb_per_second": speed / 1e9,
                "read_gb_per_second": read_speed / 1e9,
                "of_read_speed": speed / read_speed,
                "gop_per_second": operations / linear_seconds / 1e9,
                "of_peak": operations / linear_seconds / peak,
                "step_ms": step_seconds * 1e3,
                "tokens_per_second": rows / step_seconds,
            }
        )
    return rows_of_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--isa", default="")
    parser.add_argument("--formats", nargs="*", default=["int4", "int8"])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    ops = NativeOps(arguments.threads, arguments.isa)
    threads = ops._native.num_threads
    print(f"{ops.name}, {threads} threads")
    result = {"ops": ops.name, "threads": threads}
    for name in arguments.formats:
        table = measure(ops, WeightFormat(name))
        result[name] = table
        columns = "linears ms, GB/s, plain read GB/s, of it, GOP/s, of peak, step ms, tokens/s"
        print(f"\n{name}: rows, {columns}")
        for row in table:
            print("  ".join(f"{value:9.2f}" for value in row.values()))
    path = Path(__file__).parent / "results" / "kernels.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.check and result["int4"][0]["of_read_speed"] < 0.7:
        print("One row of INT4 reads its weights at less than 70 % of memory speed.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
