"""Typed reading of config.json: every wrong, missing or unsupported field is named in one sentence.

Knows no architecture. Read `config.py` next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, overload

from freehold.errors import CheckpointError

MAX_INT = 1 << 31


class Fields:
    """A JSON object whose fields are read with their type checked. `prefix` names the object."""

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self.values = values
        self._prefix = prefix

    def wrong(self, name: str, wanted: str) -> CheckpointError:
        found = repr(self.values.get(name))
        shown = found if len(found) <= 80 else found[:77] + "..."
        return CheckpointError(f"config.json: {self._prefix}{name} must be {wanted}, not {shown}.")

    def unsupported(self, name: str, supported: str) -> CheckpointError:
        shown = repr(self.values.get(name))[:80]
        return CheckpointError(
            f"config.json: {self._prefix}{name} = {shown} is not supported yet; {supported}."
        )

    @overload
    def integer(self, name: str, default: int, *, low: int = ..., high: int = ...) -> int: ...
    @overload
    def integer(self, name: str, *, low: int = ..., high: int = ...) -> int: ...
    def integer(
        self, name: str, default: int | None = None, *, low: int = 1, high: int = MAX_INT
    ) -> int:
        """A whole number in [low, high]; absent or null gives the default, if there is one."""
        value = self.values.get(name)
        if value is None:
            value = default
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def optional_integer(self, name: str, *, low: int = 1, high: int = MAX_INT) -> int | None:
        if self.values.get(name) is None:
            return None
        return self.integer(name, low=low, high=high)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (math.isfinite(value) and value > 0)
        ):
            raise self.wrong(name, "a number above 0")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        return None if self.values.get(name) is None else self.number(name)

    def boolean(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.wrong(name, "true or false")
        return value

    def one_of(self, name: str, supported: tuple[str, ...], default: str) -> str:
        value = self.values.get(name)
        if value is None:
            return default
        if value not in supported:
            raise self.unsupported(name, f"this architecture takes {' or '.join(supported)}")
        return str(value)

    def object(self, name: str) -> Fields | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object")
        return Fields(value, f"{self._prefix}{name}.")

    def token_ids(self, name: str) -> tuple[int, ...]:
        """One id, a list of ids, or null."""
        value = self.values.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int and 0 <= i < MAX_INT for i in ids):
            raise self.wrong(name, "a token id or a list of token ids")
        return tuple(ids)
