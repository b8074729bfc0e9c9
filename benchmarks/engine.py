"""Our engine beside llama.cpp, OpenVINO GenAI and transformers on the same seeded random weights.

    python benchmarks/engine.py [--check] [--quick] [--formats int4,int8,bf16] [--shapes NAME,…]
        [--peers llama.cpp,openvino,transformers] [--peer-python P] [--openvino-python P]

Each engine runs alone in a process of its own; rounds interleave them; medians are reported. A peer
that is not installed for its Python is left out by name. Writes results/engine.json and .svg, which
`docs.py` puts on docs/performance.md. `--check`: exit 1 naming what of `targets.py` is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import machine
import peers
import summary
import targets

RESULTS = Path(__file__).parent / "results"
ENGINES = Path(__file__).parent / "engines"
CACHE_TOKENS = 64 * 192  # 64 streams of prompt and answer, and one prompt of 4096
COLUMNS = {
    "prompts": [128, 512, 4096],
    "streams": [1, 4, 8, 16, 32, 64],
    "ttft": [1, 8, 32],
}
FEWER = {"prompts": [128, 512], "streams": [1, 4, 8, 16, 32], "ttft": [1]}
QUICK = {"prompts": [512], "streams": [1, 8, 32], "ttft": [1]}
TRANSFORMERS = {"prompts": [512], "streams": [1, 8], "ttft": []}


@dataclass(frozen=True)
class Case:
    """One shape in one format, and who is measured on it."""

    shape: str
    format: str
    engines: tuple[str, ...]
    columns: dict[str, list[int]]


CASES = [
    Case("qwen2-1.5b", "int4", ("freehold", "llama.cpp", "openvino"), COLUMNS),
    Case("deepseek-v2-lite-6l", "int4", ("freehold", "llama.cpp"), FEWER),
    Case("qwen2-1.5b", "int8", ("freehold", "llama.cpp"), FEWER),
    Case("qwen2-1.5b", "bf16", ("freehold", "llama.cpp", "transformers"), FEWER),
    Case("freehold-nano", "bf16", ("freehold",), FEWER),
]


def _plan(case: Case, engine: str, round_number: int) -> dict[str, list[int]]:
    """What takes long at a peer (4,096-token prompts, crowds of prompts) is measured once."""
    plan = TRANSFORMERS if engine == "transformers" else case.columns
    if engine == "freehold" or round_number == 0:
        return plan
    return {
        "prompts": [n for n in plan["prompts"] if n <= 512],
        "streams": plan["streams"],
        "ttft": [n for n in plan["ttft"] if n <= 8],
    }


def _run(peer: peers.Peer, case: Case, round_number: int, path: Path) -> dict[str, Any]:
    plan = _plan(case, peer.name, round_number) | {
        "path": str(path),
        "format": case.format,
        "threads": len(os.sched_getaffinity(0)),
        "cache_tokens": CACHE_TOKENS,
        "quoting": peer.name == "freehold" and case == CASES[0],
        "seed": round_number,
        "spawned": time.time(),
    }
    command = [peer.python, str(ENGINES / peer.script)]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{peer.name} on {case.shape} {case.format} failed:\n{done.stderr}")
    columns: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"  round {round_number}  {case.shape} {case.format} {peer.name}: "
        f"{summary.one_line(columns)}  ({time.time() - plan['spawned']:.0f} s)",
        file=sys.stderr,
    )
    return columns


def _measure(case: Case, installed: dict[str, peers.Peer], args: Any, scratch: Path) -> Any:
    """{engine: columns}, medians over the rounds; the machine's limits are read in each."""
    here = [installed[name] for name in case.engines if name in installed]
    paths = {peer.name: peer.convert(case.shape, case.format, args.cache, scratch) for peer in here}
    load_average = os.getloadavg()[0]
    rounds: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in here}
    limits = []
    for round_number in range(args.rounds):
        limits.append(machine.limits())
        for peer in here:
            rounds[peer.name].append(_run(peer, case, round_number, paths[peer.name]))
    return {
        "rounds": args.rounds,
        "load_average_before": load_average,
        "limits": summary.medians(limits),
        "engines": {name: summary.of_rounds(columns) for name, columns in rounds.items()},
    }


def _cases(args: Any) -> list[Case]:
    cases = [c for c in CASES if c.shape in args.shapes and c.format in args.formats]
    if args.quick:
        wanted = cases[:1]
        return [Case(c.shape, c.format, ("freehold", "llama.cpp"), QUICK) for c in wanted]
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one case, one round, few columns")
    parser.add_argument("--formats", type=lambda s: s.split(","), default=["int4", "int8", "bf16"])
    shapes = [*checkpoints.SHAPES, "freehold-nano"]
    parser.add_argument("--shapes", type=lambda s: s.split(","), default=shapes)
    parser.add_argument("--peers", type=lambda s: s.split(","), default=list(peers.PEERS)[1:])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="has llama_cpp and gguf")
    parser.add_argument("--openvino-python", default=sys.executable, help="has openvino_genai")
    parser.add_argument("--cache", type=Path, default=Path("var/bench"), help="checkpoints, once")
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    args.cache.mkdir(parents=True, exist_ok=True)
    if (load_average := os.getloadavg()[0]) > 0.5:
        print(
            f"The machine is not idle (load {load_average:.1f}): no figure counts.", file=sys.stderr
        )
    installed = peers.installed(args.peers, args.peer_python, args.openvino_python)
    scratch = Path(tempfile.mkdtemp(prefix="freehold-bench-"))
    try:
        results = {
            f"{case.shape} {case.format}": _measure(case, installed, args, scratch)
            for case in _cases(args)
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    record = {"machine": machine.name(), "results": results}
    summary.write(record, args.cache if args.quick else RESULTS)  # quick: not for the docs
    figures, short = targets.compare(results)
    print("\n\n".join(summary.tables(results)), file=sys.stderr)
    for line in short:
        print(f"short: {line}")
    print(" | ".join(figures))
    if args.check and short:
        sys.exit(1)


if __name__ == "__main__":
    main()
