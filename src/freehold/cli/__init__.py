"""The composition root: one file a verb. Verbs import what they need when they run.

`main` is the border of the program: a FreeholdError becomes one line on stderr and exit code 1
(2 for a wrong setting); nothing else is caught.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from freehold import __version__
from freehold.errors import ConfigError, FreeholdError

_VERBS = {
    "up": "Start worker, orchestrator and gateway on this machine and keep them running.",
    "chat": "Talk to a running Freehold in the terminal.",
    "generate": "Answer one prompt from a checkpoint on disk, without a server.",
    "bench": "Measure how fast a model is on this machine.",
    "inspect": "Say what a checkpoint is and whether it fits this machine.",
    "worker": "Run one worker: an engine, or an OpenAI-compatible server behind one.",
    "orchestrator": "Run the orchestrator alone.",
    "gateway": "Run the gateway alone.",
    "keys": "Make, list and revoke API keys.",
}


class _LazyVerbs(TyperGroup):
    """Loads a verb's file only when it is called: `freehold chat` needs no engine."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"freehold.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.help = _VERBS[cmd_name]
        return command


app = typer.Typer(cls=_LazyVerbs, add_completion=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"freehold {__version__}")
        raise typer.Exit


@app.callback()
def freehold(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Own your model: a private, offline assistant on your own machines."""


def main() -> None:
    try:
        app()
    except FreeholdError as error:
        print(f"freehold: {error.message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
