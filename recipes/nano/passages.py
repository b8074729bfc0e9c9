"""Grounded chats: numbered passages, a question, and an answer that quotes and cites, or refuses.

Knows the two languages' fact modules, not the chat template or tokens. Read `data.py` next.
"""

import random
from types import ModuleType

from recipes.nano import facts_en, facts_zh
from recipes.nano.fact import Fact

Message = dict[str, str]
FACTS: dict[str, ModuleType] = {"en": facts_en, "zh": facts_zh}
ABSENT = {
    "en": "The passages do not say that.",
    "zh": "资料中没有提到这一点。",
}
LEAD = {"en": "According to the passages: ", "zh": "根据资料："}


def answer(lang: str, sentence: str, number: int) -> str:
    """The quoted sentence with the number of its passage."""
    return f"{LEAD[lang]}{sentence} [{number}]"


def prompt(lang: str, passages: list[str], question: str | None) -> str:
    """The passages as the user message that carries them, with the question when given."""
    heading, asked = ("Passages:", "Question:") if lang == "en" else ("资料：", "问题：")
    text = "\n".join([heading, *(f"[{i}] {p}" for i, p in enumerate(passages, 1))])
    if question is None:
        return text
    return f"{text}\n\n{asked} {question}" if lang == "en" else f"{text}\n\n{asked}{question}"


def draw_facts(rng: random.Random, lang: str, count: int, held_out: bool) -> list[Fact]:
    """`count` facts that share an organisation, a topic, or neither: all pairs told apart."""
    room = FACTS[lang]
    orgs = [room.organisation(rng, held_out) for _ in range(count)]
    topics = rng.sample(range(len(room.TOPICS)), count)
    style = rng.random()
    if style < 0.3:
        orgs = [orgs[0]] * count
    elif style < 0.5:
        topics = [topics[0]] * count
    elif style < 0.7:
        orgs = [rng.choice(orgs[:2]) for _ in range(count)]
    return [room.fact(rng, org, topic, held_out) for org, topic in zip(orgs, topics, strict=True)]


def lay_out(rng: random.Random, lang: str, facts: list[Fact]) -> tuple[list[str], list[int]]:
    """Passages of one or two sentences, and the passage number (from 1) of each fact."""
    passages: list[str] = []
    numbers: list[int] = []
    for fact in facts:
        if passages and rng.random() < 0.2 and numbers.count(len(passages)) < 2:
            passages[-1] += (" " if lang == "en" else "") + fact.sentence
        else:
            passages.append(fact.sentence)
        numbers.append(len(passages))
    return passages, numbers


def absent_question(rng: random.Random, lang: str, facts: list[Fact], held_out: bool) -> str:
    """A question that none of the facts answers: another organisation, or another topic."""
    room = FACTS[lang]
    told = {fact.topic for fact in facts}
    topic = rng.choice([t for t in range(len(room.TOPICS)) if t not in told])
    org = rng.choice(facts).org if rng.random() < 0.5 else room.organisation(rng, held_out)
    if org not in {fact.org for fact in facts} and rng.random() < 0.5:
        topic = rng.choice(sorted(told))
    return str(rng.choice(room.fact(rng, org, topic, held_out).questions))


def grounded_chat(
    rng: random.Random, lang: str, count: int, held_out: bool, refuse: bool, system: bool
) -> list[Message]:
    """One or two turns over `count` facts; the first answer is a refusal when `refuse`."""
    facts = draw_facts(rng, lang, count, held_out)
    passages, numbers = lay_out(rng, lang, facts)

    def turn(refused: bool) -> tuple[str, str]:
        if refused:
            return absent_question(rng, lang, facts, held_out), ABSENT[lang]
        chosen = rng.randrange(len(facts))
        said = answer(lang, facts[chosen].sentence, numbers[chosen])
        return rng.choice(facts[chosen].questions), said

    question, reply = turn(refuse)
    if system:
        messages = [
            {"role": "system", "content": prompt(lang, passages, None)},
            {"role": "user", "content": question},
        ]
    else:
        messages = [{"role": "user", "content": prompt(lang, passages, question)}]
    messages.append({"role": "assistant", "content": reply})
    if rng.random() < 0.25:
        question, reply = turn(rng.random() < 0.2)
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": reply},
        ]
    return messages
