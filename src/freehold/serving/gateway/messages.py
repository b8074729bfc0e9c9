"""A chat's messages out of JSON: roles, text or text parts, and what clients echo back unasked.

Knows no template. Read `requests.py` next.
"""

from __future__ import annotations

from typing import Any

from freehold.errors import InvalidRequest
from freehold.types import ChatMessage

MAX_MESSAGES = 2048
MAX_NAME_CHARS = 64
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# What an answer of ours (or OpenAI's) carries and a client may send back with the history.
_ECHOED = frozenset({"reasoning", "reasoning_content", "refusal", "annotations", "tool_call_id"})
_REFUSED_UNLESS_EMPTY = ("tool_calls", "function_call", "audio")
_KNOWN = _ECHOED | {"role", "content", "name", *_REFUSED_UNLESS_EMPTY}


def read_messages(value: Any) -> list[ChatMessage]:
    """Raises InvalidRequest naming the message and the field."""
    if not isinstance(value, list):
        raise InvalidRequest("messages must be an array.", param="messages")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise InvalidRequest(
            f"messages must have from 1 to {MAX_MESSAGES} entries, not {len(value)}.",
            param="messages",
        )
    return [_read(message, f"messages.{index}") for index, message in enumerate(value)]


def _read(message: Any, where: str) -> ChatMessage:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where} must be an object.", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(
            f"{where}.role must be one of: {', '.join(ROLES)}.", param=f"{where}.role"
        )
    for field in _REFUSED_UNLESS_EMPTY:
        if message.get(field):
            raise InvalidRequest(
                f"{where}.{field} is not supported; leave it out.", param=f"{where}.{field}"
            )
    if not _KNOWN.issuperset(message):
        raise InvalidRequest(
            f"{where} has a field that is not known; it takes role, content and name.", param=where
        )
    return ChatMessage(
        ROLES[role], _content(message.get("content"), where), _name(message.get("name"), where)
    )


def _content(content: Any, where: str) -> str:
    """Text parts are joined by a line break, as vLLM does."""
    where = f"{where}.content"
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{where} must be a string or an array of text parts.", param=where)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise InvalidRequest(
                f'{where} may hold only parts of type "text": images, audio and files are not '
                "read here.",
                param=where,
            )
        text = part.get("text")
        if not isinstance(text, str):
            raise InvalidRequest(f"{where} has a text part without a text.", param=where)
        texts.append(text)
    return "\n".join(texts)


def _name(name: Any, where: str) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InvalidRequest(
            f"{where}.name must be a string of 1 to {MAX_NAME_CHARS} characters.",
            param=f"{where}.name",
        )
    return name
