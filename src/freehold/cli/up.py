"""`freehold up`: one house on this machine, supervised until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from freehold.config import Settings, load_settings
from freehold.deploy.supervisor import HouseSpec, Supervisor
from freehold.serving.gateway.keys import KeyStore

app = typer.Typer()


@app.command()
def up(
    model: Annotated[Path | None, typer.Option(help="Checkpoint directory to serve.")] = None,
    name: Annotated[str | None, typer.Option(help="Its public name.")] = None,
    quantize: Annotated[str | None, typer.Option(help="bf16, int8 or int4.")] = None,
    kv_cache: Annotated[str | None, typer.Option(help="bf16 or int8.")] = None,
    host: Annotated[str | None, typer.Option(help="Gateway address.")] = None,
    port: Annotated[int | None, typer.Option(help="Gateway port; 0: any.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers on this machine.")] = None,
    threads: Annotated[int | None, typer.Option(help="Kernel threads a worker.")] = None,
    context: Annotated[int | None, typer.Option(help="Longest context served.")] = None,
    speculate: Annotated[str | None, typer.Option(help="off, lookup, mtp or auto.")] = None,
) -> None:
    """Start everything, say where to look, keep it running."""
    settings = load_settings(
        model=model,
        name=name,
        quantize=quantize,
        kv_cache_format=kv_cache,
        host=host,
        port=port,
        workers=workers,
        threads=threads,
        context=context,
        speculate=speculate,
    )
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _first_key(settings.home)
    asyncio.run(_serve(settings, key))


async def _serve(settings: Settings, key: str) -> None:
    console = Console(stderr=True)
    supervisor = Supervisor(
        _house(settings), report=lambda line: console.print(f"[yellow]{line}[/]")
    )
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        with console.status(f"Loading {settings.model} …"):
            address = await supervisor.start()
        _say_where(settings, f"http://{address}", key)
        try:
            await supervisor.run()
        finally:
            console.print("Stopping …")
            await supervisor.stop()


def _say_where(settings: Settings, url: str, key: str) -> None:
    model = settings.public_name
    print(
        f"""
Freehold serves {model}.

  Page     {url}/#key={key}
  API      {url}/v1
  Key      {key}
  Chat     .venv/bin/freehold chat
  Try it   curl -s {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \
-H 'Content-Type: application/json' \
-d '{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}'

Logs are in {log_directory(settings)}. Ctrl-C stops everything.
""",
        flush=True,
    )


def log_directory(settings: Settings) -> Path:
    return settings.home / "run"


def _first_key(home: Path) -> str:
    """The key of this house's owner, made at first start and kept in a file only they can read."""
    path = home / "api_key"
    store = KeyStore(home / "keys.db")
    if path.exists():
        key = path.read_text(encoding="utf-8").strip()
        if store.verify(key) is not None:
            return key
    key = store.add("owner")
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(key + "\n")
    partial.replace(path)
    return key


def _house(settings: Settings) -> HouseSpec:
    freehold = [sys.executable, "-m", "freehold"]
    worker = [
        *(*freehold, "worker", "--orchestrator", "{orchestrator}", "--port", "0"),
        *("--model", str(settings.model), "--name", settings.public_name),
        *("--quantize", settings.quantize.value, "--ops", settings.ops),
        *("--kv-cache", settings.kv_cache_format.value),
        *("--threads", str(_threads_a_worker(settings))),
        *("--speculate", settings.speculate.value),
        *(("--context", str(settings.context)) if settings.context else ()),
    ]
    gateway: Sequence[str] = [
        *(*freehold, "gateway", "--orchestrator", "{orchestrator}"),
        *("--host", settings.host, "--port", str(settings.port)),
    ]
    return HouseSpec(
        orchestrator=[
            *(*freehold, "orchestrator", "--port", "0", "--max-queue", str(settings.max_queue))
        ],
        gateway=gateway,
        workers=[worker] * settings.workers,
        directory=log_directory(settings),
        env={
            "FREEHOLD_CLUSTER_TOKEN": secrets.token_urlsafe(32),
            "FREEHOLD_HOME": str(settings.home),
        },
    )


def _threads_a_worker(settings: Settings) -> int:
    """Workers on one machine share its cores instead of each taking all."""
    if settings.threads:
        return settings.threads
    return max(1, len(os.sched_getaffinity(0)) // settings.workers)
