"""`freehold worker`: one engine, or an OpenAI-compatible server behind our face."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from freehold.config import load_settings
from freehold.engine import EngineConfig
from freehold.ops.create import create
from freehold.serving.worker import WorkerSettings, run

app = typer.Typer()


@app.command()
def worker(
    model: Annotated[Path | None, typer.Option(help="Checkpoint directory.")] = None,
    name: Annotated[str | None, typer.Option(help="Its public name.")] = None,
    quantize: Annotated[str | None, typer.Option(help="bf16, int8 or int4.")] = None,
    kv_cache: Annotated[str | None, typer.Option(help="bf16 or int8.")] = None,
    ops: Annotated[str | None, typer.Option(help="auto, native or reference.")] = None,
    threads: Annotated[int | None, typer.Option(help="Kernel threads; 0: one a core.")] = None,
    context: Annotated[int | None, typer.Option(help="Longest context served.")] = None,
    speculate: Annotated[str | None, typer.Option(help="off, lookup, mtp or auto.")] = None,
    orchestrator: Annotated[str | None, typer.Option(help="host:port to register with.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any.")] = 0,
    model_root: Annotated[
        Path | None, typer.Option(help="Load may read checkpoints below it.")
    ] = None,
    upstream_url: Annotated[
        str | None, typer.Option(help="Forward to this OpenAI-compatible server instead.")
    ] = None,
    upstream_model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    cluster_token: Annotated[
        str, typer.Option(envvar="FREEHOLD_CLUSTER_TOKEN", help="As the orchestrator's.")
    ] = "",
    ready_file: Annotated[Path | None, typer.Option(help="The address is written here.")] = None,
) -> None:
    """Serve until SIGTERM."""
    chosen = load_settings(
        model=model,
        name=name,
        quantize=quantize,
        kv_cache_format=kv_cache,
        ops=ops,
        threads=threads,
        context=context,
        speculate=speculate,
    )
    is_upstream = upstream_url is not None
    settings = WorkerSettings(
        model=None if is_upstream else chosen.model,
        name=upstream_model if is_upstream and not chosen.name else chosen.public_name,
        host=host,
        port=port,
        orchestrator=orchestrator,
        cluster_token=cluster_token,
        quantize=chosen.quantize,
        ops=None if is_upstream else create(chosen.ops, num_threads=chosen.threads or None),
        engine=EngineConfig(
            max_model_len=chosen.context,
            kv_cache_format=chosen.kv_cache_format,
            speculate=chosen.speculate,
            keep_packed=chosen.keep_packed,
            prefix_store=chosen.home / "prefixes" if chosen.prefix_store_gib else None,
            prefix_store_bytes=int(chosen.prefix_store_gib * 2**30),
        ),
        model_root=model_root,
        upstream_url=upstream_url,
        upstream_model=upstream_model,
        upstream_api_key=os.environ.get("FREEHOLD_UPSTREAM_API_KEY"),
        ready_file=ready_file,
    )
    uvloop.run(run(settings, lambda address: print(f"worker at {address}", flush=True)))
