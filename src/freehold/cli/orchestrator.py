"""`freehold orchestrator`: registry, admission and dispatch, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from freehold.config import load_settings
from freehold.serving.orchestrator import OrchestratorSettings, run

app = typer.Typer()


@app.command()
def orchestrator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any.")] = 9100,
    cluster_token: Annotated[
        str, typer.Option(envvar="FREEHOLD_CLUSTER_TOKEN", help="Workers must show the same.")
    ] = "",
    max_queue: Annotated[int | None, typer.Option(help="Requests that may wait.")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="The address is written here.")] = None,
) -> None:
    """Serve until SIGTERM."""
    settings = OrchestratorSettings(
        host=host,
        port=port,
        cluster_token=cluster_token,
        max_queue=load_settings(max_queue=max_queue).max_queue,
        ready_file=ready_file,
    )
    uvloop.run(run(settings, lambda address: print(f"orchestrator at {address}", flush=True)))
