"""Serving speed beside llama.cpp's server on the same seeded random checkpoint, in one run.

    python benchmarks/serve.py [--check] [--shapes qwen2-1.5b,deepseek-v2-lite-6l]

Starts our whole house (`freehold up`) at INT4 and, when `llama-cpp-python[server]` and `gguf` are
installed for --peer-python, its server at Q4_0. Clients stream 100-token prompts, 64 tokens
each, at 1, 8 and 32 streams; runs of the two are interleaved, medians reported. Writes
benchmarks/results/serve.json. --check: exit 0 only if decode of one stream is at least 0.8 × the
peer's, naming what falls short.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

import checkpoints

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS = 100, 64
TARGET = {"qwen2-1.5b": 0.8}  # decode tokens/s, one stream, ours over the peer's


@dataclass(frozen=True)
class Server:
    url: str
    key: str
    model: str
    extra: dict[str, Any]  # fields of the request only this server knows


@dataclass(frozen=True)
class Run:
    """One run of n streams at once."""

    ttft_p50_seconds: float
    ttft_p99_seconds: float
    tpot_seconds: float  # median time between tokens of a stream
    total_tokens_per_second: float
    decode_tokens_per_second: float  # of one stream, after its first token


async def _stream(client: httpx.AsyncClient, server: Server, prompt: str) -> list[float]:
    """One completion; seconds from the request to each token."""
    body: dict[str, Any] = {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": NUM_OUTPUT_TOKENS,
        "temperature": 0,
        "stream": True,
        **server.extra,
    }
    started = time.perf_counter()
    times: list[float] = []
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{server.url}: {response.status_code} {await response.aread()!r}")
        async for line in response.aiter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                times.append(time.perf_counter() - started)  # noqa: PERF401 (the time matters)
    return times


async def _measure(server: Server, num_streams: int, seed: int) -> Run:
    """n streams at once, each with its own prompt so that no prefix cache helps."""
    headers = {"Authorization": f"Bearer {server.key}"}
    limits = httpx.Limits(max_connections=num_streams)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, timeout=1200, limits=limits, trust_env=False
    ) as client:
        prompts = [
            f"{seed:06d} {i:06d} ".ljust(NUM_PROMPT_TOKENS, "abcdefghijklmnopq"[i % 17])
            for i in range(num_streams)
        ]
        started = time.perf_counter()
        streams = await asyncio.gather(*(_stream(client, server, p) for p in prompts))
        seconds = time.perf_counter() - started
    firsts = sorted(times[0] for times in streams)
    gaps = [b - a for times in streams for a, b in itertools.pairwise(times)]
    decode = [(len(times) - 1) / (times[-1] - times[0]) for times in streams]
    return Run(
        ttft_p50_seconds=statistics.median(firsts),
        ttft_p99_seconds=firsts[min(len(firsts) - 1, int(0.99 * len(firsts)))],
        tpot_seconds=statistics.median(gaps),
        total_tokens_per_second=sum(map(len, streams)) / seconds,
        decode_tokens_per_second=statistics.median(decode),
    )


@contextmanager
def _process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, env=os.environ | env, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, key: str, log: Path) -> None:
    for _ in range(1200):
        try:
            headers = {"Authorization": f"Bearer {key}"}
            if httpx.get(f"{url}/v1/models", headers=headers, trust_env=False).json()["data"]:
                return
        except (httpx.TransportError, KeyError, ValueError):
            time.sleep(0.25)
    raise SystemExit(f"{url} did not come up:\n{log.read_text()[-2000:]}")


@contextmanager
def _freehold(checkpoint: Path, scratch: Path) -> Iterator[Server]:
    url = f"http://127.0.0.1:{(port := _free_port())}"
    home, log = scratch / "home", scratch / "freehold.log"
    command = [sys.executable, "-m", "freehold", "up", "--model", str(checkpoint)]
    command += ["--quantize", "int4", "--port", str(port), "--context", "4096"]
    with _process(command, {"FREEHOLD_HOME": str(home)}, log):
        while not (home / "api_key").exists():
            time.sleep(0.05)
        key = (home / "api_key").read_text().strip()
        _wait(url, key, log)
        yield Server(url, key, checkpoint.name, {"ignore_eos": True})


@contextmanager
def _llama_cpp(python: str, gguf: Path, scratch: Path) -> Iterator[Server]:
    url = f"http://127.0.0.1:{(port := _free_port())}"
    log = scratch / "llama.log"
    threads = str(len(os.sched_getaffinity(0)))
    command = [python, "-m", "llama_cpp.server", "--model", str(gguf), "--port", str(port)]
    command += ["--n_threads", threads, "--n_threads_batch", threads, "--n_ctx", "4096"]
    command += ["--interrupt_requests", "False"]
    with _process(command, {}, log):
        _wait(url, "none", log)
        yield Server(url, "none", gguf.stem, {"logit_bias": {"2": -100}})


def _has_peer(python: str) -> bool:
    probe = [python, "-c", "import llama_cpp.server, gguf"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def _compare(shape: str, args: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    """{server: {streams: Run}} with the medians over interleaved rounds."""
    cache = Path(args.cache)
    checkpoint = checkpoints.build(shape, cache)
    gguf = cache / f"{shape}.gguf"
    has_peer = _has_peer(args.peer_python)
    if has_peer and not gguf.exists():
        here = str(Path(__file__).parent / "gguf_peer.py")
        partial = gguf.with_suffix(".partial")
        subprocess.run([args.peer_python, here, str(checkpoint), str(partial)], check=True)
        partial.rename(gguf)
    runs: dict[str, dict[int, list[Run]]] = {}
    for round_number in range(args.rounds):
        servers = {"freehold": _freehold(checkpoint, scratch)}
        if has_peer:
            servers["llama.cpp"] = _llama_cpp(args.peer_python, gguf, scratch)
        for name, context in servers.items():
            with context as server:
                asyncio.run(_measure(server, 1, 999_000 + round_number))  # warm-up
                for num_streams in args.streams:
                    run = asyncio.run(_measure(server, num_streams, round_number))
                    runs.setdefault(name, {}).setdefault(num_streams, []).append(run)
                    print(f"  {name:10} {num_streams:3} streams  {run}", file=sys.stderr)
    return {
        name: {str(n): _median(rounds) for n, rounds in by_streams.items()}
        for name, by_streams in runs.items()
    }


def _median(rounds: list[Run]) -> dict[str, float]:
    columns = [asdict(run) for run in rounds]
    return {key: round(statistics.median(c[key] for c in columns), 4) for key in columns[0]}


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {platform.system()}"


def _shortfalls(results: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What falls short by name, and the ratios."""
    short, ratios = [], []
    for shape, servers in results.items():
        if "llama.cpp" not in servers:
            if shape in TARGET:
                short.append(f"{shape}: llama-cpp-python is not installed, nothing to compare with")
            continue
        for streams, ours in servers["freehold"].items():
            peer = servers["llama.cpp"][streams]
            decode = ours["decode_tokens_per_second"] / peer["decode_tokens_per_second"]
            total = ours["total_tokens_per_second"] / peer["total_tokens_per_second"]
            ttft = ours["ttft_p50_seconds"] / peer["ttft_p50_seconds"]
            ratios.append(
                f"{shape}@{streams}: decode {decode:.2f}x total {total:.2f}x ttft {ttft:.2f}x"
            )
            if streams == "1" and decode < TARGET.get(shape, 0):
                short.append(f"{shape}: decode {decode:.2f}x of llama.cpp, target {TARGET[shape]}x")
    return short, ratios


def _page(
    record: dict[str, Any], results: dict[str, Any], ratios: list[str], short: list[str]
) -> str:
    lines = [
        "# Performance",
        "",
        "Written by `benchmarks/serve.py`; the figures are in benchmarks/results/serve.json.",
        f"Machine: {record['machine']}. {NUM_PROMPT_TOKENS}-token prompts, {NUM_OUTPUT_TOKENS} "
        f"tokens each, seeded random weights; ours INT4, llama.cpp's server Q4_0; rounds: "
        f"{record['rounds']}. llama-cpp-python's server answers one request at a time: of several "
        "streams, compare totals.",
        "",
        "| shape | streams | server | TTFT p50 s | TTFT p99 s | TPOT ms | total tok/s "
        "| decode tok/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape, servers in results.items():
        for name, by_streams in servers.items():
            for streams, run in by_streams.items():
                lines.append(
                    f"| {shape} | {streams} | {name} | {run['ttft_p50_seconds']:.2f} "
                    f"| {run['ttft_p99_seconds']:.2f} | {1000 * run['tpot_seconds']:.1f} "
                    f"| {run['total_tokens_per_second']:.1f} "
                    f"| {run['decode_tokens_per_second']:.1f} |"
                )
    lines += ["", "Ours over llama.cpp's (TTFT: less is better):", ""]
    lines += [f"- {ratio}" for ratio in ratios]
    lines += [f"- falls short: {line}" for line in short]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--shapes", default=",".join(checkpoints.SHAPES))
    parser.add_argument(
        "--streams", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8, 32]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer-python", default=sys.executable, help="where llama_cpp is installed"
    )
    parser.add_argument("--cache", default="var/bench", help="checkpoints are built here once")
    args = parser.parse_args()
    Path(args.cache).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="freehold-bench-"))
    try:
        results = {shape: _compare(shape, args, scratch) for shape in args.shapes.split(",")}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    short, ratios = _shortfalls(results)
    record = {"machine": _machine(), "command": "benchmarks/serve.py", "rounds": args.rounds}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "serve.json").write_text(json.dumps(record | {"results": results}, indent=1) + "\n")
    PAGE.write_text(_page(record, results, ratios, short))
    for line in short:
        print(f"short: {line}")
    print(" | ".join(ratios) or json.dumps(results))
    if args.check and short:
        sys.exit(1)


if __name__ == "__main__":
    main()
