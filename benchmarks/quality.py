"""What rounding costs: the shipped model on our kernels at BF16, INT8 and INT4 beside float32.

    python benchmarks/quality.py [--check] [--chats N]

The text is chats of the recipe's generator about names that training never saw. Float32 is the
reference (NumPy). At every position: is the likeliest token the same, and the Kullback-Leibler
divergence of the reference's distribution to ours, in nats. The model is small (256 wide), so
rounding shows more than in a large one. Writes results/quality.json. `--check`: exit 1 if a format
is past its bound in `BOUNDS`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for recipes/

from recipes.nano.data import chat  # noqa: E402

import machine  # noqa: E402
from freehold.model.chat_template import ChatTemplate  # noqa: E402
from freehold.model.loading import load_model  # noqa: E402
from freehold.model.model import Model  # noqa: E402
from freehold.model.tokenizer import Tokenizer  # noqa: E402
from freehold.ops import BatchLayout  # noqa: E402
from freehold.ops.native import NativeOps  # noqa: E402
from freehold.ops.reference import ReferenceOps  # noqa: E402
from freehold.types import ChatMessage, WeightFormat  # noqa: E402
from summary import markdown  # noqa: E402

RESULTS = Path(__file__).parent / "results"
NANO = ROOT / "src" / "freehold" / "models" / "nano"
BLOCK_SIZE, SEED = 16, 20_261_124
BOUNDS = {  # least agreement of the likeliest token, greatest mean divergence
    WeightFormat.BF16: (0.99, 0.001),
    WeightFormat.INT8: (0.97, 0.01),
    WeightFormat.INT4: (0.90, 0.1),
}


def texts(num_chats: int) -> list[list[int]]:
    tokenizer = Tokenizer.load(NANO)
    template = ChatTemplate.load(NANO, tokenizer)
    found = []
    for index in range(num_chats):
        messages = [ChatMessage(m["role"], m["content"]) for m in chat(SEED, index, held_out=True)]
        rendered = template.render(messages, add_generation_prompt=False)
        found.append(tokenizer.encode(rendered, add_special_tokens=False))
    return found


def log_probabilities(model: Model, token_ids: list[int]) -> np.ndarray:
    """[num_tokens, vocab] of one text in one step."""
    num_tokens = len(token_ids)
    num_blocks = -(-num_tokens // BLOCK_SIZE)
    positions = np.arange(num_tokens, dtype=np.int32)
    layout = BatchLayout(
        positions=positions,
        slots=positions.astype(np.int64),
        query_starts=np.array([0, num_tokens], np.int32),
        context_lens=np.array([num_tokens], np.int32),
        block_tables=np.arange(num_blocks, dtype=np.int32)[None],
        block_size=BLOCK_SIZE,
    )
    caches = model.make_caches(num_blocks, BLOCK_SIZE)
    logits = model.logits(model.forward(np.array(token_ids, np.int32), layout, caches))
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def measure(num_chats: int) -> dict[str, Any]:
    tokens = texts(num_chats)
    reference = load_model(NANO, ops=ReferenceOps(), quantize=WeightFormat.FLOAT32)
    ops = NativeOps()
    models = {format: load_model(NANO, ops=ops, quantize=format) for format in BOUNDS}
    agrees: dict[str, list[np.ndarray]] = {format: [] for format in BOUNDS}
    divergence: dict[str, list[np.ndarray]] = {format: [] for format in BOUNDS}
    losses: dict[str, list[np.ndarray]] = {format: [] for format in ("float32", *BOUNDS)}
    for token_ids in tokens:
        truth = log_probabilities(reference, token_ids)
        following = (np.arange(len(token_ids) - 1), token_ids[1:])
        losses["float32"].append(-truth[following])
        for format, model in models.items():
            ours = log_probabilities(model, token_ids)
            losses[format].append(-ours[following])
            agrees[format].append(ours.argmax(-1) == truth.argmax(-1))
            divergence[format].append((np.exp(truth) * (truth - ours)).sum(-1))
    figures: dict[str, Any] = {"float32": {"loss": float(np.concatenate(losses["float32"]).mean())}}
    for format in BOUNDS:
        spread = np.concatenate(divergence[format])
        figures[format.value] = {
            "top1_agreement": float(np.concatenate(agrees[format]).mean()),
            "mean_kl": float(spread.mean()),
            "p99_kl": float(np.quantile(spread, 0.99)),
            "loss": float(np.concatenate(losses[format]).mean()),
        }
    return {"isa": ops.isa, "num_tokens": sum(map(len, tokens)), "results": figures}


def table(record: dict[str, Any]) -> str:
    head = ["weights", "same likeliest token", "mean KL", "p99 KL", "loss (float32's)"]
    base = record["results"]["float32"]["loss"]
    rows = [
        [
            name,
            f"{100 * f['top1_agreement']:.2f} %",
            f"{f['mean_kl']:.5f}",
            f"{f['p99_kl']:.4f}",
            f"{f['loss']:.4f} ({base:.4f})",
        ]
        for name, f in record["results"].items()
        if name != "float32"
    ]
    return markdown(head, rows)


def compare(record: dict[str, Any]) -> tuple[list[str], list[str]]:
    figures, short = [], []
    for format, (agreement, divergence) in BOUNDS.items():
        found = record["results"][format.value]
        text = f"{format.value}: {100 * found['top1_agreement']:.2f} %, KL {found['mean_kl']:.5f}"
        figures.append(text)
        if found["top1_agreement"] < agreement or found["mean_kl"] > divergence:
            short.append(f"{text}; at least {100 * agreement:g} %, at most {divergence:g}")
    return figures, short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--chats", type=int, default=40)
    args = parser.parse_args()
    record = {"machine": machine.name()} | measure(args.chats)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality.json").write_text(json.dumps(record, indent=1) + "\n")
    figures, short = compare(record)
    print(table(record), file=sys.stderr)
    for line in short:
        print(f"short: {line}")
    print(" | ".join(figures))
    if args.check and short:
        sys.exit(1)


if __name__ == "__main__":
    main()
