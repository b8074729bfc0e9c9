"""One child process: started by command, ready when it writes its address, never left behind.

Knows no role and no policy of restarting; that is `supervisor.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from freehold.errors import Unavailable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Runs in the child before exec: a killed supervisor takes its children along (prctl(2))."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """A command that is told `--ready-file F` and writes its bound address there once it serves."""

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, env: dict[str, str]
    ) -> None:
        self.name = name
        self.command = list(command)
        self.ready_file = directory / f"{name}.ready"
        self.log_path = directory / f"{name}.log"
        self._env = env
        self._child: asyncio.subprocess.Process | None = None
        self.started_at = 0.0

    async def start(self, ready_timeout_seconds: float) -> str:
        """Start and wait for the address. Raises Unavailable with the end of the child's log."""
        self.ready_file.unlink(missing_ok=True)
        self.started_at = time.monotonic()
        with self.log_path.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self.command,
                "--ready-file",
                str(self.ready_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._env},
                start_new_session=True,  # the terminal's Ctrl-C reaches the supervisor alone
                preexec_fn=_die_with_parent,
            )
        deadline = self.started_at + ready_timeout_seconds
        while not self.ready_file.exists():
            if self._child.returncode is not None:
                raise Unavailable(f"The {self.name} did not start: {self.last_words()}")
            if time.monotonic() > deadline:
                await self.stop(0)
                raise Unavailable(
                    f"The {self.name} was not ready within {ready_timeout_seconds:.0f} s; "
                    f"its log is {self.log_path}."
                )
            await asyncio.sleep(0.02)
        return self.ready_file.read_text(encoding="utf-8").strip()

    def last_words(self) -> str:
        """The last line of the log: the child's one-sentence error, if it died of one."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no output; see {self.log_path}."

    async def wait(self) -> int:
        assert self._child is not None
        return await self._child.wait()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the whole group, SIGKILL after the grace; returns when it is gone."""
        child = self._child
        if child is None:
            return
        if child.returncode is None and grace_seconds > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):  # the SIGKILL below is the answer to it
                await asyncio.wait_for(child.wait(), grace_seconds)
        self._signal(signal.SIGKILL)  # also what the child itself may have left in its group
        await child.wait()
        self.ready_file.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        try:
            os.killpg(self._child.pid, number)
        except ProcessLookupError:
            return
