"""Serving speed over HTTP beside llama.cpp's server on the same seeded random weights, in one run.

    python benchmarks/serve.py [--check] [--llama-server PATH | --peer-python P] [--rounds N]

Starts our whole house (`freehold up`) at INT4 and llama.cpp at Q4_0: its own `llama-server` with 64
slots where that is given, else llama-cpp-python's, which answers one request at a time. Clients
stream 100-token prompts, 64 tokens each, drawn at temperature 1 from the 40 likeliest, at 1, 8 and
64 at once; the two are interleaved, medians reported. Writes results/serve.json. `--check`: exit 1
naming every target that is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

import machine
import peers
import servers
from summary import markdown, quantile

RESULTS = Path(__file__).parent / "results"
SHAPE = "qwen2-1.5b"
NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS = 100, 64


@dataclass(frozen=True)
class Run:
    """One run of n streams at once."""

    ttft_p50_seconds: float
    ttft_p99_seconds: float
    gap_p50_seconds: float  # between tokens of a stream
    gap_p99_seconds: float
    total_tokens_per_second: float
    decode_tokens_per_second: float  # of one stream, after its first token


async def _stream(
    client: httpx.AsyncClient, server: servers.Server, prompt: str, seed: int
) -> list[float]:
    """One completion; seconds from the request to each piece of text."""
    body: dict[str, Any] = {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": NUM_OUTPUT_TOKENS,
        "temperature": 1,
        "top_k": 40,
        "seed": seed,
        "stream": True,
        **server.extra,
    }
    started = time.perf_counter()
    times: list[float] = []
    reason = None
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{server.url}: {response.status_code} {await response.aread()!r}")
        async for line in response.aiter_lines():
            if line.startswith("data: {") and (choices := json.loads(line[6:])["choices"]):
                times.append(time.perf_counter() - started)
                reason = choices[0].get("finish_reason") or reason
    if reason != "length":
        raise SystemExit(f"{server.url}: an answer ended with {reason!r}, not at its last token")
    return times


async def _measure(server: servers.Server, num_streams: int, seed: int) -> Run:
    """n streams at once, each with its own prompt so that no prefix cache helps."""
    headers = {"Authorization": f"Bearer {server.key}"}
    limits = httpx.Limits(max_connections=num_streams)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, timeout=1200, limits=limits, trust_env=False
    ) as client:
        prompts = [
            f"{i:06d} {seed:06d} ".ljust(NUM_PROMPT_TOKENS, "abcdefghijklmnopq"[i % 17])
            for i in range(num_streams)
        ]
        started = time.perf_counter()
        streams = await asyncio.gather(
            *(_stream(client, server, p, seed * 1000 + i) for i, p in enumerate(prompts))
        )
        seconds = time.perf_counter() - started
    firsts = [times[0] for times in streams]
    gaps = [b - a for times in streams for a, b in itertools.pairwise(times)]
    decode = [(NUM_OUTPUT_TOKENS - 1) / (times[-1] - times[0]) for times in streams]
    return Run(
        ttft_p50_seconds=statistics.median(firsts),
        ttft_p99_seconds=quantile(firsts, 0.99),
        gap_p50_seconds=statistics.median(gaps),
        gap_p99_seconds=quantile(gaps, 0.99),
        total_tokens_per_second=num_streams * NUM_OUTPUT_TOKENS / seconds,
        decode_tokens_per_second=statistics.median(decode),
    )


def _servers(args: Any, scratch: Path) -> dict[str, AbstractContextManager[servers.Server]]:
    """New ones, not yet started."""
    found = {"freehold": servers.freehold(peers.checkpoint(SHAPE, args.cache), scratch)}
    if args.llama_server:
        gguf = peers.gguf(SHAPE, "int4", args.cache, args.peer_python)
        found["llama-server"] = servers.llama_server(args.llama_server, gguf, scratch)
    elif peers.has_modules(args.peer_python, "llama_cpp.server, gguf"):
        gguf = peers.gguf(SHAPE, "int4", args.cache, args.peer_python)
        python_server = servers.llama_python_server(args.peer_python, gguf, scratch)
        found["llama-cpp-python"] = python_server
    return found


def _compare(args: Any, scratch: Path) -> dict[str, dict[str, dict[str, float]]]:
    """{server: {streams: Run}} with the medians over interleaved rounds."""
    runs: dict[str, dict[int, list[Run]]] = {}
    for round_number in range(args.rounds):
        for name, context in _servers(args, scratch).items():
            with context as server:
                asyncio.run(_measure(server, 1, 999_000 + round_number))  # warm-up
                for num_streams in args.streams:
                    run = asyncio.run(_measure(server, num_streams, round_number))
                    runs.setdefault(name, {}).setdefault(num_streams, []).append(run)
                    print(f"  {name:16} {num_streams:3} streams  {run}", file=sys.stderr)
    return {
        name: {str(n): _median(rounds) for n, rounds in by_streams.items()}
        for name, by_streams in runs.items()
    }


def _median(rounds: list[Run]) -> dict[str, float]:
    columns = [asdict(run) for run in rounds]
    return {key: statistics.median(c[key] for c in columns) for key in columns[0]}


def compare(results: dict[str, dict[str, dict[str, float]]]) -> tuple[list[str], list[str]]:
    """The figures, and what falls short by name."""
    figures: list[str] = []
    short: list[str] = []
    ours = results["freehold"]
    peer = next((runs for name, runs in results.items() if name != "freehold"), None)
    if peer is None:
        return figures, ["no llama.cpp server is given or installed: nothing to compare with"]
    for streams, mine in ours.items():
        theirs = peer[streams]
        total = mine["total_tokens_per_second"] / theirs["total_tokens_per_second"]
        ttft = mine["ttft_p50_seconds"] / theirs["ttft_p50_seconds"]
        gap = mine["gap_p99_seconds"]
        figures.append(
            f"{streams} clients: total {total:.2f}x, TTFT p50 {ttft:.2f}x of llama.cpp's, "
            f"inter-token p99 {1000 * gap:.0f} ms"
        )
        if streams == "64":
            short += [f"64 clients: total is {total:.2f}x, at least 5x"] if total < 5 else []
            short += [f"64 clients: TTFT p50 is {ttft:.2f}x, at most 0.2x"] if ttft > 0.2 else []
            if gap > 0.3:
                short.append(f"64 clients: inter-token p99 is {1000 * gap:.0f} ms, at most 300 ms")
    return figures, short


def table(record: dict[str, Any]) -> str:
    head = ["server", "clients", "total tok/s", "TTFT p50 s", "TTFT p99 s"]
    head += ["inter-token p50 ms", "inter-token p99 ms", "one stream tok/s"]
    rows = [
        [name, streams]
        + [f"{run['total_tokens_per_second']:.1f}"]
        + [f"{run[f'ttft_{q}_seconds']:.2f}" for q in ("p50", "p99")]
        + [f"{1000 * run[f'gap_{q}_seconds']:.0f}" for q in ("p50", "p99")]
        + [f"{run['decode_tokens_per_second']:.1f}"]
        for name, by_streams in record["results"].items()
        for streams, run in by_streams.items()
    ]
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--streams", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8, 64]
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--llama-server", help="llama.cpp's own server, built for this machine")
    parser.add_argument("--peer-python", default=sys.executable, help="has llama_cpp and gguf")
    parser.add_argument("--cache", type=Path, default=Path("var/bench"), help="checkpoints, once")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    scratch = Path(tempfile.mkdtemp(prefix="freehold-bench-"))
    try:
        results = _compare(args, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    figures, short = compare(results)
    record = {"machine": machine.name(), "rounds": args.rounds, "load_average_before": load_average}
    RESULTS.mkdir(exist_ok=True)
    record["results"] = results
    (RESULTS / "serve.json").write_text(json.dumps(record, indent=1) + "\n")
    print(table(record), file=sys.stderr)
    for line in short:
        print(f"short: {line}")
    print(" | ".join(figures))
    if args.check and short:
        sys.exit(1)


if __name__ == "__main__":
    main()
