"""How a process of the house starts and ends: bind, announce the address, wait for a signal.

Knows nothing of what the process does. Read `orchestrator/main.py` next.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
from collections.abc import Callable
from pathlib import Path

import grpc

from freehold.errors import ConfigError


def bind(server: grpc.aio.Server, host: str, port: int) -> str:
    """Bind and return `host:port` with the real port. ConfigError when it cannot be bound."""
    address = format_address(host, port)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(
            f"Cannot listen on {address}: the port is taken or the host is not ours; "
            "choose another with --port or --host."
        ) from error
    return format_address(host, bound)


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def announce(
    address: str, ready: Callable[[str], None] | None, ready_file: Path | str | None
) -> None:
    """Tell that we serve at `address`: the callback, and one line written atomically."""
    if ready_file is not None:
        target = Path(ready_file)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(address + "\n")
        draft.replace(target)
    if ready is not None:
        ready(address)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM or SIGINT. Call it from the running loop of the main thread."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
