"""`freehold keys add|list|revoke`: over the gateway's key store."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from freehold.config import load_settings
from freehold.serving.gateway.keys import KeyStore

app = typer.Typer(no_args_is_help=True)


def _store() -> KeyStore:
    return KeyStore(load_settings().home / "keys.db")


@app.command()
def add(name: Annotated[str, typer.Argument(help="What the key is for.")]) -> None:
    """Make a key and print it: the only time it can be seen."""
    typer.echo(_store().add(name))


@app.command("list")
def list_keys() -> None:
    """Names, last characters and dates; never a key."""
    table = Table("id", "name", "ends in", "created", "revoked")
    for key in _store().list():
        table.add_row(
            str(key.id),
            key.name,
            f"…{key.last_characters}",
            str(key.created),
            str(key.revoked or ""),
        )
    Console().print(table)


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="A key's name or id.")]) -> None:
    """Refuse a key from now on, in running gateways too."""
    _store().revoke(key)
    typer.echo(f"Revoked {key}.")
