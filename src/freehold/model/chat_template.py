"""Messages to prompt text by the model's own Jinja template, in a sandbox without Python.

The template comes with the weights and is trusted as little: it runs in minijinja (Rust) with
fuel that ends endless work, and sees only native values: the messages enter as a literal in
front of the template's source, since a Python list handed over would show its methods. Knows
nothing of HTTP or tokens. Read `types.ChatMessage` next.

Not ended by fuel, measured with minijinja 3.1: printing lists nested tens of thousands deep
(overflows the stack) or shared 2^25 times (10 s), and '{:1000000000}'.format(1) (1 GB). Against
templates made to do that, rendering would have to move into a process of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import minijinja

from freehold.errors import CheckpointError, TemplateError
from freehold.model import json_file
from freehold.model.tokenizer import Tokenizer
from freehold.types import ChatMessage

MAX_TEMPLATE_BYTES: Final = 1 << 20
MAX_MESSAGES: Final = 10_000
MAX_MESSAGE_CHARS: Final = 8 << 20
MAX_PROMPT_CHARS: Final = 16 << 20
FUEL: Final = 2_000_000  # instructions; about 0.2 s of loops, some 100 times a long chat's need
_STRFTIME: Final = re.compile(r"(?:[^%]|%-?[A-Za-z%]){0,64}")  # no widths: they fill memory


class ChatTemplate:
    """A model's chat template. Safe to use from several threads."""

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        """`source` None: the model has no template. Raises CheckpointError for bad syntax."""
        self._source = source
        self._special_tokens = dict(special_tokens)
        self._environment = _environment()
        if source is not None:
            try:
                self._environment.undeclared_variables_in_str(source)  # parses
            except minijinja.TemplateError as error:
                raise CheckpointError(
                    f"The chat template cannot be parsed: {_reason(error)} (line {error.line})."
                ) from None

    @classmethod
    def load(cls, directory: str | Path, tokenizer: Tokenizer) -> ChatTemplate:
        """Take chat_template.jinja, else chat_template.json, else tokenizer_config.json's.

        Raises CheckpointError naming a file that is malformed; a model without any loads, and
        refuses to render.
        """
        return cls(_find(Path(directory)), tokenizer.special_tokens)

    @property
    def exists(self) -> bool:
        """Whether the model has a template; without one only raw prompts can be completed."""
        return self._source is not None

    def render(self, messages: Sequence[ChatMessage], add_generation_prompt: bool = True) -> str:
        """The prompt, special tokens included: encode it without adding them again.

        Raises TemplateError: no template, too much text, or the template refused, ran out of
        fuel, or reached for what is not there.
        """
        if self._source is None:
            raise TemplateError(
                "This model has no chat template; send a plain prompt to /v1/completions instead."
            )
        try:
            prompt = self._environment.render_str(
                # The newline ends the block's line and is trimmed with it.
                f"{{% set messages = {_literal(messages)} %}}\n{self._source}",
                "chat template",
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens,
            )
        except _Refused as refused:
            raise TemplateError(f"The chat template refused these messages: {refused}") from None
        except minijinja.TemplateError as error:
            raise TemplateError(_explain(error)) from None
        except (TypeError, ValueError, RecursionError) as error:  # out of tojson's arguments
            kind = type(error).__name__
            raise TemplateError(f"The chat template failed in a filter: {kind}.") from None
        if len(prompt) > MAX_PROMPT_CHARS:
            raise TemplateError(
                f"The chat template made {len(prompt):,} characters of these messages; at most "
                f"{MAX_PROMPT_CHARS:,} are taken."
            )
        return prompt


class _Refused(Exception):
    """The template called raise_exception."""


def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(
        filters={"tojson": _to_json, "trim": _trim},
        globals={
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        },
        trim_blocks=True,  # these three as transformers sets them
        lstrip_blocks=True,
        auto_escape_callback=_no_escape,
        fuel=FUEL,
        debug=False,
    )
    for name in ("debug", "cycler", "joiner"):  # debug() prints the engine's state
        environment.remove_global(name)
    return environment


def _no_escape(_: str) -> bool:
    return False


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers: minijinja's own escapes < and > for HTML."""
    if isinstance(indent, int) and not 0 <= indent <= 16:
        raise ValueError("indent")
    if separators is not None and any(len(each) > 16 for each in separators):
        raise ValueError("separators")
    return json.dumps(
        value,
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )


def _trim(value: object, chars: str | None = None) -> str:
    """As in Jinja: minijinja's own leaves the separators U+001C to U+001F standing."""
    return str(value).strip(chars)


def _raise_exception(message: object = "") -> None:
    text = " ".join(str(message).split())[:300] or "it gave no reason"
    raise _Refused(text if text.endswith((".", "!", "?")) else f"{text}.")


def _strftime_now(form: object) -> str:
    if not isinstance(form, str) or not _STRFTIME.fullmatch(form):
        raise _Refused("it asked strftime_now for a format that is not taken.")
    return datetime.now().strftime(form)


def _literal(messages: Sequence[ChatMessage]) -> str:
    """The messages as a Jinja literal: JSON in ASCII is one, and cannot be broken out of."""
    num_chars = sum(len(message.content) for message in messages)
    if len(messages) > MAX_MESSAGES or num_chars > MAX_MESSAGE_CHARS:
        raise TemplateError(
            f"{len(messages):,} messages with {num_chars:,} characters are more than the "
            f"{MAX_MESSAGES:,} messages or {MAX_MESSAGE_CHARS:,} characters taken.",
            param="messages",
        )
    values = []
    for message in messages:
        value = {"role": message.role, "content": message.content}
        if message.name is not None:
            value["name"] = message.name
        values.append(value)
    return json.dumps(values)


def _explain(error: minijinja.TemplateError) -> str:
    if error.kind == "OutOfFuel":
        return (
            "The chat template did not finish within its bound of work; it loops, or the messages "
            "are too long for it."
        )
    line = "" if error.line is None else f" (line {max(1, error.line - 1)})"
    return f"The chat template failed on these messages: {_reason(error)}{line}."


def _reason(error: minijinja.TemplateError) -> str:
    return " ".join((error.detail or error.message).split())[:200]


def _find(directory: Path) -> str | None:
    if (path := directory / "chat_template.jinja").exists():
        return json_file.read_text(path, MAX_TEMPLATE_BYTES)
    for file in ("chat_template.json", "tokenizer_config.json"):
        value = json_file.read_optional_object(directory / file).get("chat_template")
        if isinstance(value, list):  # named templates
            value = {
                entry["name"]: entry["template"]
                for entry in value
                if isinstance(entry, dict) and entry.keys() >= {"name", "template"}
            }.get("default")
        if value is not None:
            if not isinstance(value, str) or len(value) > MAX_TEMPLATE_BYTES:
                raise CheckpointError(
                    f"chat_template in {file} must be a text of at most {MAX_TEMPLATE_BYTES:,} "
                    "characters, or a list of named ones with one called 'default'."
                )
            return value
    return None
