"""A whole house as a user starts it: `freehold up` on the shipped model, in its own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from freehold.config import shipped_model


@dataclass(frozen=True)
class Stack:
    url: str
    api_key: str
    home: Path
    process: subprocess.Popen[str]
    start_seconds: float  # from the command to the first answered request


def start_stack(home: Path, *flags: str) -> Stack:
    """Run `freehold up --port 0` and wait until it says where it is."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", "up", "--port", "0", *flags],
        env=os.environ | {"FREEHOLD_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said: dict[str, str] = {}
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        words = line.split()
        if len(words) == 2 and words[0] in ("API", "Key"):
            said[words[0]] = words[1]
        if "Ctrl-C stops everything" in line:
            break
    assert len(said) == 2, "".join(lines)
    url = said["API"].removesuffix("/v1")
    answer = httpx.post(
        f"{url}/v1/completions",
        headers={"Authorization": f"Bearer {said['Key']}"},
        json={"model": "freehold-nano", "prompt": "Hello", "max_tokens": 1},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return Stack(url, said["Key"], home, process, time.perf_counter() - started)


def stop_stack(stack: Stack) -> int:
    """Ctrl-C, as a terminal sends it to the foreground; returns the exit status."""
    stack.process.send_signal(signal.SIGINT)
    return stack.process.wait(timeout=30)


@pytest.fixture(scope="session")
def freehold_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not (shipped_model() / "model.safetensors").exists():
        pytest.fail("The shipped model is missing from the package; run recipes/nano.")
    stack = start_stack(tmp_path_factory.mktemp("home"))
    yield stack
    stop_stack(stack)
