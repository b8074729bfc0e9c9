"""`freehold inspect DIR`: what a checkpoint is, from its headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from freehold.model.inspect import ModelReport, inspect
from freehold.model.memory import readable_bytes
from freehold.types import WeightFormat

app = typer.Typer()


@app.command("inspect")
def inspect_command(
    directory: Annotated[Path, typer.Argument(help="A checkpoint directory.")],
    quantize: Annotated[WeightFormat, typer.Option(help="Weights held as.")] = WeightFormat.BF16,
    context: Annotated[int | None, typer.Option(help="Tokens of cache to plan for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Architecture, parameters, bytes, and whether it fits this machine."""
    report = inspect(directory, quantize, context)
    if as_json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _print(report, Console())


def _print(report: ModelReport, console: Console) -> None:
    console.print(
        f"[bold]{report.name}[/]  {report.architecture}, {report.num_layers} layers, "
        f"{report.attention} attention\n"
        f"{report.num_parameters:,} parameters, {report.num_active_parameters:,} active a token; "
        f"vocabulary {report.vocab_size:,}; context up to {report.max_context:,} tokens\n"
        f"cache {report.kv_bytes_per_token:,} bytes a token"
    )
    table = Table("kind", "stored", f"as {report.quantize}")
    for kind in sorted({*report.stored_bytes_by_kind, *report.loaded_bytes_by_kind}):
        stored, loaded = report.stored_bytes_by_kind, report.loaded_bytes_by_kind
        table.add_row(
            kind, readable_bytes(stored.get(kind, 0)), readable_bytes(loaded.get(kind, 0))
        )
    console.print(table)
    for title, by_format in (
        ("stored as", report.stored_bytes_by_format),
        ("loaded as", report.loaded_bytes_by_format),
    ):
        parts = (f"{name} {readable_bytes(size)}" for name, size in by_format.items())
        console.print(f"{title}: {', '.join(parts)}", highlight=False)
    verdict = "[green]fits[/]" if report.fits else "[red]does not fit[/]"
    console.print(
        f"As {report.quantize} with {report.context:,} tokens of cache it needs "
        f"{readable_bytes(report.needed_bytes)}; {readable_bytes(report.available_bytes)} is free: "
        f"{verdict}. Room for {report.max_context_that_fits:,} tokens."
    )
