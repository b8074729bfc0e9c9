"""Starts and stops the servers that `serve.py` measures: our whole house, and llama.cpp's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

MAX_STREAMS, TOKENS_PER_STREAM = 64, 256
START_SECONDS = 300


@dataclass(frozen=True)
class Server:
    url: str
    model: str
    key: str = "none"
    extra: dict[str, Any] = field(default_factory=dict)  # fields only this server knows


@contextmanager
def freehold(checkpoint: Path, scratch: Path) -> Iterator[Server]:
    """Gateway, orchestrator and worker, as `freehold up` starts them."""
    port = _free_port()
    home, log = scratch / "home", scratch / "freehold.log"
    command = [sys.executable, "-m", "freehold", "up", "--model", str(checkpoint)]
    command += ["--quantize", "int4", "--port", str(port), "--context", "4096"]
    with _process(command, {"FREEHOLD_HOME": str(home)}, log):
        deadline = time.monotonic() + START_SECONDS
        while not (home / "api_key").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        key = (home / "api_key").read_text().strip()
        server = Server(f"http://127.0.0.1:{port}", checkpoint.name, key, {"ignore_eos": True})
        _wait(server, log)
        yield server


@contextmanager
def llama_server(binary: str, gguf: Path, scratch: Path) -> Iterator[Server]:
    """llama.cpp's own server with a slot for every stream: the strongest peer."""
    port, log = _free_port(), scratch / "llama.log"
    threads = str(len(os.sched_getaffinity(0)))
    command = [binary, "--model", str(gguf), "--port", str(port), "--flash-attn", "on"]
    command += ["--threads", threads, "--threads-batch", threads]
    command += ["--parallel", str(MAX_STREAMS)]
    command += ["--ctx-size", str(MAX_STREAMS * TOKENS_PER_STREAM)]
    with _process(command, {}, log):
        server = Server(f"http://127.0.0.1:{port}", gguf.stem, extra={"ignore_eos": True})
        _wait(server, log)
        yield server


@contextmanager
def llama_python_server(python: str, gguf: Path, scratch: Path) -> Iterator[Server]:
    """llama-cpp-python's: one request at a time, the others wait."""
    port, log = _free_port(), scratch / "llama.log"
    threads = str(len(os.sched_getaffinity(0)))
    command = [python, "-m", "llama_cpp.server", "--model", str(gguf), "--port", str(port)]
    command += ["--n_threads", threads, "--n_threads_batch", threads, "--n_ctx", "4096"]
    command += ["--interrupt_requests", "False"]
    with _process(command, {}, log):
        no_eos = {"logit_bias": {"2": -100}}
        server = Server(f"http://127.0.0.1:{port}", gguf.stem, extra=no_eos)
        _wait(server, log)
        yield server


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


def _wait(server: Server, log: Path) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{server.url}/v1/models", headers=headers, trust_env=False)
            if answer.status_code == 200 and answer.json()["data"]:
                return
        except (httpx.TransportError, KeyError, ValueError):
            pass
        time.sleep(0.25)
    raise SystemExit(f"{server.url} did not come up:\n{log.read_text()[-2000:]}")
