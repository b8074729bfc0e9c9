"""What a fact is: one sentence about one organisation and the questions it answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A sentence, told of `org`, of the language's topic number `topic`."""

    org: str
    topic: int
    sentence: str
    questions: tuple[str, ...]
