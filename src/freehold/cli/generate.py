"""`freehold generate DIR --prompt …`: one answer from a checkpoint on disk, no server."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from freehold.engine import EngineConfig, LoadedEngine, Request, load_engine
from freehold.errors import InvalidRequest
from freehold.ops.create import OpsName, create
from freehold.types import (
    CacheFormat,
    ChatMessage,
    SamplingParams,
    Speculate,
    TokenEvent,
    WeightFormat,
)

app = typer.Typer()


@app.command()
def generate(
    directory: Annotated[Path, typer.Argument(help="A checkpoint directory.")],
    prompt: Annotated[str, typer.Option(help="What to answer; '-' reads standard input.")],
    max_tokens: Annotated[int | None, typer.Option(help="At most this many tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    quantize: Annotated[WeightFormat, typer.Option(help="Weights held as.")] = WeightFormat.BF16,
    kv_cache: Annotated[CacheFormat, typer.Option(help="Cache held as.")] = CacheFormat.BF16,
    ops: Annotated[OpsName, typer.Option(help="auto, native or reference.")] = "auto",
    threads: Annotated[int, typer.Option(help="Kernel threads; 0: one a core.")] = 0,
    speculate: Annotated[Speculate, typer.Option(help="Guess ahead.")] = Speculate.AUTO,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with figures.")] = False,
) -> None:
    """Stream the answer to standard output."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    sampling.check()
    text = sys.stdin.read() if prompt == "-" else prompt
    started = time.perf_counter()
    model = load_engine(
        directory,
        quantize=quantize,
        ops=create(ops, num_threads=threads or None),
        config=EngineConfig(max_num_requests=1, speculate=speculate, kv_cache_format=kv_cache),
    )
    engine = model.engine
    loaded = time.perf_counter()
    rendered = text if raw else model.chat_template.render([ChatMessage("user", text)])
    prompt_ids = model.tokenizer.encode(rendered, add_special_tokens=raw)
    if not prompt_ids:
        raise InvalidRequest("The prompt is empty; give at least one character.", param="prompt")
    engine.add(Request("generate", prompt_ids, sampling))
    events: list[TokenEvent] = []
    ttft_seconds = 0.0
    while engine.has_work:
        for event in engine.step():
            ttft_seconds = ttft_seconds or time.perf_counter() - loaded
            events.append(event)
            if not as_json:
                print(event.text, end="", flush=True)
    seconds = time.perf_counter() - loaded
    if as_json:
        print(
            json.dumps(
                _report(model, events, len(prompt_ids), loaded - started, ttft_seconds, seconds),
                ensure_ascii=False,
            )
        )
    else:
        print()


def _report(
    model: LoadedEngine,
    events: list[TokenEvent],
    num_prompt_tokens: int,
    load_seconds: float,
    ttft_seconds: float,
    seconds: float,
) -> dict[str, object]:
    ids = [event.token_id for event in events if event.token_id is not None]
    decode_seconds = seconds - ttft_seconds
    return {
        "text": "".join(event.text for event in events),
        "token_ids": ids,
        "finish_reason": events[-1].finish_reason,
        "num_prompt_tokens": num_prompt_tokens,
        "num_output_tokens": len(ids),
        "load_seconds": round(load_seconds, 4),
        "ttft_seconds": round(ttft_seconds, 4),
        "tokens_per_second": round((len(ids) - 1) / decode_seconds, 2) if len(ids) > 1 else None,
        "revision": model.revision,
    }
