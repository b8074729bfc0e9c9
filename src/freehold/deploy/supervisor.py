"""Starts orchestrator, workers and gateway on one machine, restarts what dies, stops it all.

Starts processes by command and imports none of them. `cli/up.py` gives the commands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from freehold.deploy.process import Process
from freehold.errors import Unavailable

_STABLE_SECONDS = 30.0  # a child that lived this long starts again without delay
_MAX_BACKOFF_SECONDS = 10.0
_STOP_GRACE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class HouseSpec:
    """What to run. Each command takes `--ready-file`; `{orchestrator}` becomes its address."""

    orchestrator: Sequence[str]
    gateway: Sequence[str]
    workers: Sequence[Sequence[str]]
    directory: Path  # logs and ready files, one directory a running house
    env: dict[str, str]  # for children only: secrets do not go on command lines
    ready_timeout_seconds: float = 600.0


class Supervisor:
    """`start()` returns the gateway's address when everything serves; `run()` keeps it so."""

    def __init__(self, spec: HouseSpec, report: Callable[[str], None]) -> None:
        self._spec = spec
        self._report = report
        self._processes: list[Process] = []

    async def start(self) -> str:
        """Start all; raises Unavailable with the culprit's own words, leaving nothing behind."""
        self._spec.directory.mkdir(parents=True, exist_ok=True)
        try:
            orchestrator = self._process("orchestrator", self._spec.orchestrator, "")
            address = await orchestrator.start(self._spec.ready_timeout_seconds)
            _fix_port(orchestrator, address)
            gateway = self._process("gateway", self._spec.gateway, address)
            workers = [
                self._process(f"worker-{i}", command, address)
                for i, command in enumerate(self._spec.workers)
            ]
            addresses = await asyncio.gather(
                *(p.start(self._spec.ready_timeout_seconds) for p in [gateway, *workers])
            )
            _fix_port(gateway, addresses[0])
            return addresses[0]
        except BaseException:
            await self.stop()
            raise

    async def run(self) -> None:
        """Restart what exits, with a growing delay, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for process in self._processes:
                group.create_task(self._keep(process))

    async def stop(self) -> None:
        """Stop all: the gateway first so that no request is taken that cannot be answered."""
        gateway = [p for p in self._processes if p.name == "gateway"]
        rest = [p for p in self._processes if p.name != "gateway"]
        for wave in (gateway, rest):
            await asyncio.gather(*(p.stop(_STOP_GRACE_SECONDS) for p in wave))

    async def _keep(self, process: Process) -> None:
        backoff = 0.0
        while True:
            code = await process.wait()
            lived = time.monotonic() - process.started_at
            backoff = (
                0.0 if lived > _STABLE_SECONDS else min(2 * backoff + 0.25, _MAX_BACKOFF_SECONDS)
            )
            self._report(f"{process.name} exited with {code}; restarting in {backoff:.2f} s")
            await asyncio.sleep(backoff)
            try:
                await process.start(self._spec.ready_timeout_seconds)
                self._report(f"{process.name} serves again")
            except Unavailable as error:
                self._report(error.message)

    def _process(self, name: str, command: Sequence[str], orchestrator: str) -> Process:
        filled = [part.replace("{orchestrator}", orchestrator) for part in command]
        process = Process(name, filled, self._spec.directory, self._spec.env)
        self._processes.append(process)
        return process


def _fix_port(process: Process, address: str) -> None:
    """A restarted process must come back where the others and the clients know it."""
    port = address.rstrip("/").rsplit(":", 1)[1]
    at = process.command.index("--port")
    process.command[at + 1] = port
