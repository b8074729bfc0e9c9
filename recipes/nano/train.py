"""Trains the model for a number of minutes by the clock, in steps that resume from a checkpoint.

Loss falls on what the assistant says, and lightly on a share of the rest. Knows the generator and
the tokenizer; `export.py` turns the result into a Hugging Face directory.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from recipes.nano import data
from recipes.nano.loss import ROWS, HeadLoss
from recipes.nano.model import Nano, NanoConfig
from recipes.nano.optim import make_optimizers
from recipes.nano.tokenizer import encode_chat

TOKENS_A_BATCH = 2048
LENGTH_STEP = 16  # few lengths, so that few shapes of product ever occur
POOL = 1024  # chats sorted by length together, so that a batch pads little
PEAK_LR = 3e-3
WARMUP_STEPS = 60
EASY_SHARE = 0.5  # part of the run over which chats grow from short to full
# Chats that only repeat words: what they need is the copying that quoting needs, and nothing else
# predicts them. With 3 % of them the model was still guessing names after 5 million tokens.
DRILL, DRILL_UNTIL, DRILL_AFTER = 0.45, 0.72, 0.05
PROMPT_SHARE, PROMPT_WEIGHT = 0.12, 0.3
BALANCE_RATE = 0.005
LOG_STEPS = 50
SAVE_SECONDS = 240.0

Batch = tuple[torch.Tensor, torch.Tensor]  # ids and weights, each [batch, length]


def pool_of_batches(
    tokenizer: Tokenizer, seed: int, pool: int, ease: float, drill: float
) -> list[Batch]:
    """Pool number `pool` of the stream: chats in batches of nearly equal length, shuffled."""
    rng = random.Random(f"{seed}/pool/{pool}")
    indices = range(pool * POOL, (pool + 1) * POOL)
    rows = [encode_chat(tokenizer, data.chat(seed, index, ease, drill=drill)) for index in indices]
    rows.sort(key=lambda row: -len(row[0]))
    batches, start = [], 0
    while start < len(rows):  # longest first, so that the first row of a batch sets its length
        length = -(-len(rows[start][0]) // LENGTH_STEP) * LENGTH_STEP
        count = TOKENS_A_BATCH // length
        batches.append(pad_batch(rng, rows[start : start + count], count, length))
        start += count
    rng.shuffle(batches)
    return batches


def pad_batch(
    rng: random.Random, rows: list[tuple[list[int], list[int]]], count: int, length: int
) -> Batch:
    """Right-padded ids and the loss weight of each id as a target, each [count, length]."""
    ids = torch.zeros(count, length, dtype=torch.long)
    weights = torch.zeros(count, length)
    for r, (row, said) in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)
        weights[r, : len(row)] = torch.tensor(
            [1.0 if s else PROMPT_WEIGHT * (rng.random() < PROMPT_SHARE) for s in said]
        )
    return ids, weights


def loss_of(model: Nano, batch: Batch) -> tuple[torch.Tensor, float]:
    """The weighted loss to descend, and the plain mean over what the assistant says."""
    ids, weights = batch
    hidden = model(ids)[:, :-1].flatten(0, 1)
    targets, weights = ids[:, 1:].flatten(), weights[:, 1:].flatten()
    # The head runs only where a loss is taken: it is half of the arithmetic. Rows of weight 0
    # fill the last block, so that only one shape of product occurs.
    counted = weights.nonzero()[:, 0]
    counted = torch.cat((counted, (weights == 0).nonzero()[: -len(counted) % ROWS, 0]))
    weight = weights[counted]
    loss, losses = HeadLoss.apply(
        hidden.index_select(0, counted), model.embed, targets[counted], weight / weight.sum()
    )
    return loss, float(losses[weight == 1.0].mean())


class Clock:
    """The share of the time budget that is used, over resumed runs too."""

    def __init__(self, budget_seconds: float, spent_seconds: float) -> None:
        self.budget, self.start = budget_seconds, time.monotonic() - spent_seconds

    def spent(self) -> float:
        return time.monotonic() - self.start

    def share(self) -> float:
        return min(1.0, self.spent() / self.budget)


def learning_rate_share(step: int, clock_share: float) -> float:
    """Warm-up by steps, level for a third, then linear to zero by the clock."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (1.0 - clock_share) / 0.65)


def save(path: Path, model: Nano, optimizers: list[torch.optim.Optimizer], at: dict) -> None:
    """Write the resumable state, whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "at": at,
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def stream(
    tokenizer: Tokenizer, seed: int, first: int, clock: Clock
) -> Iterator[tuple[int, Batch]]:
    """(pool, batch) for ever; chats start short and reach full range after `EASY_SHARE`."""
    pool = first
    while True:
        ease = max(0.0, 1.0 - clock.share() / EASY_SHARE)
        drill = DRILL if clock.share() < DRILL_UNTIL else DRILL_AFTER
        for batch in pool_of_batches(tokenizer, seed, pool, ease, drill):
            yield pool, batch
        pool += 1


class Log:
    """train.jsonl: one row every `LOG_STEPS` steps, means since the row before."""

    def __init__(self, path: Path, clock: Clock, tokens: int) -> None:
        self.file = path.open("a", encoding="utf-8")
        self.clock = clock
        self.losses: list[float] = []
        self.mark = (clock.spent(), tokens)

    def step(self, at: dict[str, float], said: float, imbalance: float) -> None:
        """Count one step whose loss on the assistant's words is `said`."""
        self.losses.append(said)
        if len(self.losses) < LOG_STEPS:
            return
        spent, tokens = self.clock.spent(), int(at["tokens"])
        row = {
            "step": at["step"],
            "seconds": round(spent, 1),
            "tokens": tokens,
            "said_loss": round(sum(self.losses) / len(self.losses), 4),
            "tokens_per_second": round((tokens - self.mark[1]) / (spent - self.mark[0])),
            "imbalance": round(imbalance, 2),
        }
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self.losses, self.mark = [], (spent, tokens)


def descend(model: Nano, optimizers: list[torch.optim.Optimizer], batch: Batch, lr: float) -> float:
    """One step at the share `lr` of the peak rates; returns the loss on the assistant's words."""
    loss, said = loss_of(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return said


def train(tokenizer: Tokenizer, folder: Path, minutes: float, seed: int) -> dict[str, float]:
    """Train until `minutes` are spent in all; resumes from `folder`/state.pt. Returns figures."""
    torch.manual_seed(seed)
    model = Nano(NanoConfig(vocab_size=tokenizer.get_vocab_size()))
    optimizers = make_optimizers(model, PEAK_LR)
    at: dict[str, float] = {"step": 0, "pool": 0, "tokens": 0, "spent": 0.0}
    path = folder / "state.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        at = {**state["at"], "pool": state["at"]["pool"] + 1}
    clock = Clock(minutes * 60, at["spent"])
    log = Log(folder / "train.jsonl", clock, int(at["tokens"]))
    for pool, batch in stream(tokenizer, seed, int(at["pool"]), clock):
        if clock.share() >= 1.0:
            break
        lr = learning_rate_share(int(at["step"]), clock.share())
        said = descend(model, optimizers, batch, lr)
        imbalance = max(m.balance(BALANCE_RATE * lr) for m in model.routers())
        at["pool"], at["step"] = pool, at["step"] + 1
        at["tokens"] += batch[0].numel()
        log.step(at, said, imbalance)
        if clock.spent() - at["spent"] > SAVE_SECONDS:
            at["spent"] = clock.spent()
            save(path, model, optimizers, at)
    at["spent"] = clock.spent()
    save(path, model, optimizers, at)
    return at
