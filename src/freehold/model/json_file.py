"""Reading the small JSON and text files that stand beside the weights, with bounds.

Knows nothing of what the files mean; every failure is one CheckpointError that gives the file's
name but not the directory around it. Read `checkpoint.py` next.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from freehold.errors import CheckpointError

MAX_CONFIG_BYTES = 16 << 20


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The whole file, at most `max_bytes`. Raises CheckpointError naming `path.name`.

    Opened without blocking and checked to be a regular file, so that a pipe or a device put in
    a model directory can neither hang the reader nor feed it for ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path.name} is not a regular file.")
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} is missing.") from None
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from None
    if len(content) > max_bytes:
        raise CheckpointError(
            f"{path.name} is {status.st_size:,} bytes; at most {max_bytes:,} are read."
        )
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """The file as UTF-8 text. Raises CheckpointError naming `path.name`."""
    try:
        return read_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path.name} is not UTF-8 text: bad byte at offset {error.start:,}."
        ) from None


def read_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The file as one JSON object. Raises CheckpointError naming `path.name`."""
    return parse_object(read_text(path, max_bytes), path.name)


def read_optional_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Like `read_object`, but {} where there is no such file."""
    return read_object(path, max_bytes) if path.exists() else {}


def parse_object(text: str, name: str) -> dict[str, Any]:
    """`text` as one JSON object; `name` is what errors call it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{name} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError):  # an integer of thousands of digits; endless nesting
        raise CheckpointError(
            f"{name} is not valid JSON: too deep, or too long a number."
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} must hold a JSON object, not {json_type(value)}.")
    return value


def json_type(value: object) -> str:
    """What JSON calls the type of a parsed value, with its article, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def shown(text: str) -> str:
    """What a file says, such as a name, as it can stand in a one-line message."""
    text = text if len(text) <= 120 else f"{text[:117]}..."
    return text if text.isprintable() else repr(text)[1:-1]
