"""`freehold chat`: a terminal chat against a running Freehold, over its OpenAI HTTP API.

Ctrl-C while an answer streams stops the answer; at the prompt it clears the line; Ctrl-D leaves.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from rich.console import Console

from freehold.config import load_settings
from freehold.errors import AuthenticationFailed, FreeholdError, Unavailable

app = typer.Typer()
_HELP = "/new starts afresh, /exit (or Ctrl-D) leaves; Ctrl-C stops an answer."


@dataclass
class _Chat:
    client: httpx.Client
    model: str
    options: dict[str, Any]
    messages: list[dict[str, str]] = field(default_factory=list)

    def deltas(self) -> Generator[dict[str, Any], None, None]:
        """Stream one answer to `messages`; closing the iterator disconnects, which cancels it."""
        body = {"model": self.model, "messages": self.messages, "stream": True, **self.options}
        body["stream_options"] = {"include_usage": True}
        with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                raise _error(response)
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk: dict[str, Any] = json.loads(line[6:])
                if "error" in chunk:
                    raise Unavailable(chunk["error"]["message"])
                yield chunk


def _error(response: httpx.Response) -> FreeholdError:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {response.status_code} without saying why."
    return AuthenticationFailed(message) if response.status_code == 401 else Unavailable(message)


@app.command()
def chat(
    url: Annotated[str | None, typer.Option(help="The gateway; this machine's by default.")] = None,
    key: Annotated[str | None, typer.Option(envvar="FREEHOLD_API_KEY", help="API key.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name; the first by default.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float | None, typer.Option()] = None,
    max_tokens: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Ask, watch the answer stream, ask again."""
    settings = load_settings()
    url = url or f"http://127.0.0.1:{settings.port}"
    client = httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key or _saved_key(settings.home)}"},
        timeout=httpx.Timeout(600, connect=5),
        trust_env=False,
    )
    console = Console()
    with client:
        try:
            names = _models(client)
        except httpx.TransportError:
            raise Unavailable(f"No Freehold answers at {url}; start one with `make up`.") from None
        options = {"temperature": temperature, "max_tokens": max_tokens}
        session = _Chat(
            client,
            model or names[0],
            {name: value for name, value in options.items() if value is not None},
            [{"role": "system", "content": system}] if system else [],
        )
        console.print(f"[bold]{session.model}[/] at {url}. {_HELP}")
        _loop(session, console, settings.home)


def _saved_key(home: Path) -> str:
    path = home / "api_key"
    if not path.exists():
        raise AuthenticationFailed(
            "No API key: give --key, set FREEHOLD_API_KEY, or run `make up` here once."
        )
    return path.read_text(encoding="utf-8").strip()


def _models(client: httpx.Client) -> list[str]:
    response = client.get("/v1/models")
    if response.status_code != 200:
        raise _error(response)
    names = [entry["id"] for entry in response.json()["data"]]
    if not names:
        raise Unavailable("No model is being served yet; wait for a worker to register.")
    return names


def _loop(session: _Chat, console: Console, home: Path) -> None:
    history: History = (
        FileHistory(str(home / "chat_history")) if os.access(home, os.W_OK) else InMemoryHistory()
    )
    prompt: PromptSession[str] = PromptSession(history=history)
    while True:
        try:
            text = prompt.prompt(HTML("<ansicyan><b>› </b></ansicyan>")).strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text in ("/exit", "/quit"):
            return
        if text == "/new":
            session.messages = [m for m in session.messages if m["role"] == "system"]
            console.print("[dim]A new conversation.[/]")
        elif text:
            _turn(session, text, console)


def _turn(session: _Chat, text: str, console: Console) -> None:
    """One question and its answer; on failure the question is taken back from the history."""
    session.messages.append({"role": "user", "content": text})
    answer: list[str] = []
    started = time.perf_counter()
    ttft_seconds = 0.0
    note = ""
    try:
        with closing(session.deltas()) as deltas:
            for chunk in deltas:
                if chunk.get("usage"):
                    note = f"{chunk['usage']['completion_tokens']} tokens"
                if not chunk["choices"]:
                    continue
                delta = chunk["choices"][0]["delta"]
                ttft_seconds = ttft_seconds or time.perf_counter() - started
                if delta.get("reasoning"):
                    console.print(delta["reasoning"], end="", style="dim italic", markup=False)
                if delta.get("content"):
                    answer.append(delta["content"])
                    console.print(delta["content"], end="", markup=False, highlight=False)
    except KeyboardInterrupt:
        note = "stopped"
    except (FreeholdError, httpx.TransportError) as error:
        session.messages.pop()
        console.print(f"\n[red]{error}[/]")
        return
    seconds = time.perf_counter() - started
    console.print(f"\n[dim]{note}, first after {ttft_seconds:.2f} s, {seconds:.1f} s in all[/]")
    session.messages.append({"role": "assistant", "content": "".join(answer)})
