"""`freehold bench`: how fast a model is on this machine. Beside peers: benchmarks/engine.py."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from freehold.config import load_settings
from freehold.engine import EngineConfig, load_engine
from freehold.engine.speed import NUM_DECODE_TOKENS, NUM_PROMPT_TOKENS, Speedometer, speeds
from freehold.model.inspect import ModelReport, inspect
from freehold.model.memory import readable_bytes
from freehold.ops.create import create
from freehold.ops.native import NativeOps
from freehold.types import WeightFormat

app = typer.Typer()

_CACHE_TOKENS = 64 * 192


@app.command()
def bench(
    model: Annotated[Path | None, typer.Option(help="A checkpoint directory.")] = None,
    quantize: Annotated[WeightFormat | None, typer.Option(help="Weights held as.")] = None,
    threads: Annotated[int | None, typer.Option(help="Kernel threads; 0: one a core.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Prompt speed, decoding alone and in a crowd, first tokens, memory; takes about a minute."""
    settings = load_settings(model=model, quantize=quantize, threads=threads)
    report = inspect(settings.model, settings.quantize)
    ops = create("auto", num_threads=settings.threads or None)
    started = time.perf_counter()
    config = EngineConfig(num_blocks=_CACHE_TOKENS // 16, keep_packed=settings.keep_packed)
    loaded = load_engine(settings.model, quantize=settings.quantize, ops=ops, config=config)
    start_seconds = time.perf_counter() - started
    meter = Speedometer(loaded.engine, report.vocab_size)
    prompts, streams = ((512,), (1, 8)) if quick else ((128, 512, 4096), (1, 8, 32))
    rates, crowds = speeds(meter, prompts, streams)
    found: dict[str, Any] = {
        "model": report.name,
        "quantize": report.quantize,
        "ops": ops.name,
        "start_seconds": start_seconds,
        "prompt_tokens_per_second": rates,
        "streams": {
            crowd.num_streams: {
                "tokens_per_second": crowd.tokens_per_second,
                "ttft_p50_seconds": crowd.ttft_p50_seconds,
                "ttft_max_seconds": crowd.ttft_max_seconds,
            }
            for crowd in crowds
        },
        "resident_bytes": psutil.Process().memory_full_info().pss,
        "weight_and_cache_bytes": _held_bytes(report),
    }
    if isinstance(ops, NativeOps):
        context = NUM_PROMPT_TOKENS + NUM_DECODE_TOKENS // 2
        step_bytes = report.read_bytes_per_token + context * report.kv_bytes_per_token
        limit = ops.read_bytes_per_second() / step_bytes
        found["memory_limit_tokens_per_second"] = limit
    if as_json:
        print(json.dumps(found))
    else:
        _print(found, Console())


def _held_bytes(report: ModelReport) -> int:
    """The embedding stays in the checkpoint's file."""
    held = report.loaded_bytes_by_kind
    weights = sum(held.values()) - held.get("embedding", 0)
    return weights + _CACHE_TOKENS * report.kv_bytes_per_token


def _print(found: dict[str, Any], console: Console) -> None:
    console.print(f"[bold]{found['model']}[/] as {found['quantize']} on {found['ops']}")
    table = Table("what", "tokens/s", "first token, s (median, last)")
    for num_tokens, rate in found["prompt_tokens_per_second"].items():
        table.add_row(f"prompt of {num_tokens}", f"{rate:.0f}", "")
    for num_streams, crowd in found["streams"].items():
        name = "1 stream" if num_streams == 1 else f"{num_streams} streams, all together"
        waits = f"{crowd['ttft_p50_seconds']:.3f}, {crowd['ttft_max_seconds']:.3f}"
        table.add_row(name, f"{crowd['tokens_per_second']:.1f}", waits)
    console.print(table)
    if limit := found.get("memory_limit_tokens_per_second"):
        part = found["streams"][1]["tokens_per_second"] / limit
        console.print(f"One stream: {100 * part:.0f} % of the {limit:.1f} that memory allows.")
    resident, held = found["resident_bytes"], found["weight_and_cache_bytes"]
    console.print(
        f"Memory {readable_bytes(resident)}, of it weights and cache {readable_bytes(held)}; "
        f"loaded in {found['start_seconds']:.1f} s."
    )
