"""`freehold up` as a user meets it: it starts, restarts what dies, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import Stack, start_stack, stop_stack

pytestmark = pytest.mark.e2e


def _ask(stack: Stack) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {stack.api_key}"},
        json={
            "model": "freehold-nano",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 8,
        },
        timeout=60,
        trust_env=False,
    )


def _children(stack: Stack) -> list[psutil.Process]:
    return psutil.Process(stack.process.pid).children(recursive=True)


def test_ctrl_c_stops_everything_and_a_second_start_keeps_the_key(tmp_path: Path) -> None:
    first = start_stack(tmp_path)
    children = _children(first)
    assert len(children) >= 3
    assert stop_stack(first) == 0
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    second = start_stack(tmp_path)
    try:
        assert second.api_key == first.api_key
        assert (tmp_path / "api_key").stat().st_mode & 0o777 == 0o600
        assert _ask(second).status_code == 200
    finally:
        stop_stack(second)


def test_a_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    stack = start_stack(tmp_path)
    children = _children(stack)
    stack.process.kill()
    stack.process.wait()
    _, alive = psutil.wait_procs(children, timeout=40)
    assert not alive


def test_a_killed_worker_comes_back(freehold_stack: Stack) -> None:
    worker = next(p for p in _children(freehold_stack) if "worker" in p.cmdline())
    os.kill(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _ask(freehold_stack).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_wrong_checkpoint_is_one_clear_sentence_and_no_process_left(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(AssertionError, match=r"model directory .* is empty"):
        start_stack(tmp_path / "home", "--model", str(tmp_path / "model"))
    mine = psutil.Process().children(recursive=True)
    assert not [p for p in mine if str(tmp_path) in " ".join(p.cmdline())]
