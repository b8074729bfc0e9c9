"""What generation_config.json asks for by default: end ids and sampling settings.

Knows nothing of requests: the worker lays a request's own settings over `sampling()`. Read
`types.SamplingParams` next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.errors import CheckpointError

FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """None where the file says nothing. `do_sample` false is temperature 0."""

    eos_token_ids: tuple[int, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None  # max_new_tokens

    def sampling(self) -> dict[str, float]:
        """Fields of SamplingParams this model has defaults for."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationConfig:
        """Raises CheckpointError naming the field that is not what it should be."""
        temperature = _number(values, "temperature", 0.0, 100.0)
        if values.get("do_sample") is False:
            temperature = 0.0
        top_k = _number(values, "top_k", -1, 1 << 31)
        max_tokens = _number(values, "max_new_tokens", 1, 1 << 31)
        return cls(
            eos_token_ids=eos_token_ids(values, FILE),
            temperature=temperature,
            top_p=_number(values, "top_p", 0.0, 1.0),
            top_k=None if top_k is None else max(0, int(top_k)),
            repetition_penalty=_number(values, "repetition_penalty", 0.0, 100.0),
            max_tokens=None if max_tokens is None else int(max_tokens),
        )


def eos_token_ids(values: Mapping[str, Any], file: str) -> tuple[int, ...]:
    """`eos_token_id` of a configuration, which may be missing, one id or a list of them."""
    value = values.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(each) is int and each >= 0 for each in ids):
        raise CheckpointError(f"eos_token_id in {file} must be a token id or a list of them.")
    return tuple(ids)


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    if (value := values.get(name)) is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CheckpointError(f"{name} in {FILE} must be a number from {low:g} to {high:g}.")
    return value if math.isfinite(value) else None
