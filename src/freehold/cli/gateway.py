"""`freehold gateway`: the HTTP and WebSocket door, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from freehold.config import load_settings
from freehold.serving.gateway import GatewaySettings, run

app = typer.Typer()


@app.command()
def gateway(
    orchestrator: Annotated[str, typer.Option(help="host:port")] = "127.0.0.1:9100",
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="0: any.")] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen beyond this machine.")
    ] = False,
    ready_file: Annotated[Path | None, typer.Option(help="The address is written here.")] = None,
) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(host=host, port=port)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    uvloop.run(
        run(
            GatewaySettings(
                orchestrator=orchestrator,
                keys_path=settings.home / "keys.db",
                host=settings.host,
                port=settings.port,
                allow_remote=allow_remote,
                ready_file=ready_file,
            ),
            lambda address: print(f"gateway at {address}", flush=True),
        )
    )
