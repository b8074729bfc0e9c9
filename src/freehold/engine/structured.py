"""Keeps an answer inside a JSON Schema: which tokens may come next, by llguidance.

Compiling can take a second: it happens in `Engine.prepare`, on the caller's thread. Knows no
logits and no request.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidSchema
from freehold.types import MAX_JSON_SCHEMA_BYTES

MAX_SCHEMA_DEPTH = 64
MAX_CACHED_GRAMMARS = 64

# A space, or a line break with its indent: pretty JSON is possible, endless blanks are not.
_WHITESPACE = r"( |\n {0,40})"
_LIMITS = llguidance.LLParserLimits(verbose_errors=False)


class Matcher:
    """One request's place in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocab_size)

    def forbidden(self) -> npt.NDArray[np.bool_]:
        """The tokens that may not come next, bool [vocab]; none once `error` is set."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            self._bits.fill(-1)
        bits = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little")
        return np.equal(bits[: self._vocab_size], 0)

    def consume(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)

    @property
    def is_complete(self) -> bool:
        """Nothing may follow but the end."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str | None:
        """Why the grammar cannot go on (a limit of the parser, a foreign token), or None."""
        return _one_line(self._matcher.get_error()) if self._matcher.is_error() else None


class GrammarCompiler:
    """Compiles schemas for one tokenizer and keeps the latest; safe to call from any thread."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer  # its `.backend` is a tokenizers.Tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._lock = threading.Lock()
        self._ll_tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()

    def matcher(self, schema: str) -> Matcher:
        """A fresh matcher for a JSON Schema in text. Raises InvalidSchema."""
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            _checked(schema), overrides={"whitespace_pattern": _WHITESPACE}
        )
        with self._lock:
            compiled = self._compiled.pop(grammar, None) or self._compile(grammar)
            self._compiled[grammar] = compiled
            if len(self._compiled) > MAX_CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
            return Matcher(compiled.deep_copy(), self._vocab_size)

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        if self._ll_tokenizer is None:
            self._ll_tokenizer = llguidance.LLTokenizer(
                self._tokenizer.backend.to_str(),
                n_vocab=self._vocab_size,
                eos_token=self._eos_token_ids or None,
            )
        matcher = llguidance.LLMatcher(self._ll_tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _invalid(_one_line(matcher.get_error()))
        return matcher


def _checked(schema: str) -> str:
    """The schema in canonical spelling; parsing it here keeps it data inside the grammar."""
    if len(schema) > MAX_JSON_SCHEMA_BYTES:
        raise _invalid(f"it is longer than {MAX_JSON_SCHEMA_BYTES} characters")
    try:
        parsed = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"it is not JSON ({error})") from None
    if not isinstance(parsed, dict | bool):
        raise _invalid("a schema is an object or a boolean")
    if _depth(parsed) > MAX_SCHEMA_DEPTH:
        raise _invalid(f"it is nested deeper than {MAX_SCHEMA_DEPTH} levels")
    return json.dumps(parsed)


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below
    return depth


def _one_line(text: str) -> str:
    return " ".join(text.removesuffix("<non-verbose/>").split())[:300].rstrip(".")


def _invalid(why: str) -> InvalidSchema:
    return InvalidSchema(f"The JSON schema cannot be used: {why}.", param="response_format")
