"""Tells reasoning from answer: text inside <think> … </think> is reasoning, the rest is answer.

Works on text as it comes, tags split anywhere; knows no tokens beyond the two tag ids of
tokenizers that hide their tags as special tokens. Read `engine_backend.py` next.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ReasoningSplit:
    """`is_open`: the prompt ends inside an opened <think> (DeepSeek-R1), so reasoning comes first.

    Text is (answer, reasoning), one or both of them empty. What could be the start of a tag is held
    back. Line breaks right after a tag belong to the tag.
    """

    def __init__(
        self,
        *,
        is_open: bool = False,
        open_token_id: int | None = None,
        close_token_id: int | None = None,
    ) -> None:
        self._inside = is_open
        self._after_tag = is_open
        self._held = ""
        self._open_token_id = open_token_id
        self._close_token_id = close_token_id

    def push(self, text: str, token_id: int | None = None) -> tuple[str, str]:
        answer, reasoning = self._read(text)
        if token_id is not None and token_id in (self._open_token_id, self._close_token_id):
            more_answer, more_reasoning = self.finish()
            answer, reasoning = answer + more_answer, reasoning + more_reasoning
            self._turn(token_id == self._open_token_id)
        return answer, reasoning

    def finish(self) -> tuple[str, str]:
        """What was held back: no tag after all."""
        held, self._held = self._held, ""
        return ("", held) if self._inside else (held, "")

    def _turn(self, inside: bool) -> None:
        self._inside = inside
        self._after_tag = True

    def _read(self, text: str) -> tuple[str, str]:
        parts: dict[bool, list[str]] = {False: [], True: []}
        rest = self._held + text
        while True:
            if self._after_tag:
                rest = rest.lstrip("\r\n")
                self._after_tag = not rest
            tag = CLOSE if self._inside else OPEN
            at = rest.find(tag)
            if at < 0:
                break
            parts[self._inside].append(rest[:at])
            rest = rest[at + len(tag) :]
            self._turn(not self._inside)
        certain = len(rest) - _overlap(rest, tag)
        parts[self._inside].append(rest[:certain])
        self._held = rest[certain:]
        return "".join(parts[False]), "".join(parts[True])


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
