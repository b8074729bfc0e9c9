"""Measures an exported checkpoint in transformers: held-out names, greedy answers, plain counts.

Knows the generator's answers and the exported directory, not how it was trained.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from recipes.nano import talk
from recipes.nano.passages import ABSENT, LEAD, Message, grounded_chat

EVAL_SEED = "measure"
BATCH = 20
MAX_NEW_TOKENS = 80
CITED = re.compile(r"^(.*?) ?\[(\d+)\]$", re.DOTALL)
Case = tuple[list[Message], str]  # the messages up to the question, and the answer wanted


def grounded_cases(lang: str, refuse: bool, samples: int) -> Iterator[Case]:
    """First turns over 1 to 6 facts about names that training never saw."""
    for index in range(samples):
        rng = random.Random(f"{EVAL_SEED}/{lang}/{refuse}/{index}")
        count = rng.choice([1, 2, 3, 3, 3, 4, 4, 5, 6])
        chat = grounded_chat(rng, lang, count, True, refuse, system=rng.random() < 0.2)
        first = next(i for i, m in enumerate(chat) if m["role"] == "assistant")
        yield chat[:first], chat[first]["content"]


def talk_cases(lang: str) -> list[Case]:
    """Every way of asking that small talk knows: a check of what was learned by heart."""
    return [
        ([{"role": "user", "content": way}], said) for said, ways in talk.TALK[lang] for way in ways
    ]


class Answerer:
    """Greedy answers of one exported checkpoint, in batches padded on the left."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    @torch.no_grad()
    def answer(self, chats: list[list[Message]]) -> list[str]:
        """The answer to each chat, without special tokens."""
        texts = [
            self.tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True)
            for c in chats
        ]
        out: list[str] = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer(
                texts[start : start + BATCH],
                padding=True,
                add_special_tokens=False,
                return_tensors="pt",
                return_token_type_ids=False,
            )
            ids = self.model.generate(**batch, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            new = ids[:, batch["input_ids"].shape[1] :]
            out += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return out


def judge(lang: str, case: Case, reply: str) -> dict[str, bool]:
    """What is right about a reply to a question that the passages answer."""
    messages, wanted = case
    told = "\n".join(m["content"] for m in messages)
    said, cited = CITED.match(reply.strip()), CITED.match(wanted)
    quote = said[1].removeprefix(LEAD[lang].strip()).strip() if said else ""
    return {
        "exact": reply.strip() == wanted.strip(),
        "quote_found": bool(quote) and quote in told,
        "citation_right": bool(said and cited and said[2] == cited[2]),
    }


def share(flags: list[bool]) -> float:
    """The share that is true, to three places."""
    return round(sum(flags) / len(flags), 3)


def measure(folder: Path, samples: int) -> dict[str, dict[str, object]]:
    """Scores by language, with a few replies to read."""
    model = Answerer(folder)
    scores: dict[str, dict[str, object]] = {}
    for lang in ("en", "zh"):
        answerable = list(grounded_cases(lang, False, samples))
        replies = model.answer([messages for messages, _ in answerable])
        judged = [judge(lang, c, r) for c, r in zip(answerable, replies, strict=True)]
        absent = list(grounded_cases(lang, True, samples))
        refusals = model.answer([messages for messages, _ in absent])
        chatter = talk_cases(lang)
        chats = model.answer([messages for messages, _ in chatter])
        scores[lang] = {
            "samples": samples,
            **{key: share([j[key] for j in judged]) for key in judged[0]},
            "refusal_right": share([r.strip() == ABSENT[lang] for r in refusals]),
            "wrongly_refused": share([r.strip() == ABSENT[lang] for r in replies]),
            "small_talk_exact": share(
                [r.strip() == said for (_, said), r in zip(chatter, chats, strict=True)]
            ),
            "examples": [
                {"asked": c[0][-1]["content"], "wanted": c[1], "said": r}
                for c, r in zip(answerable[:4], replies[:4], strict=True)
            ],
        }
    return scores
