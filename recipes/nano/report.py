"""Writes report.json and REPORT.md beside the recipe.

Scores, training figures, machine and command, as measured; knows nothing of how they came about.
"""

import argparse
import json
import os
import platform
from pathlib import Path

import torch

HERE = Path(__file__).parent
KEYS = (
    "exact",
    "quote_found",
    "citation_right",
    "wrongly_refused",
    "refusal_right",
    "small_talk_exact",
)


def machine() -> str:
    """The processor's name and the number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def last_rows(log: Path) -> list[dict[str, float]]:
    """The rows of the training log."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def write_report(args: argparse.Namespace, at: dict[str, float], scores: dict) -> None:
    """`at` are the figures that training returned, `scores` those of `evaluate.measure`."""
    rows = last_rows(args.scratch / "train.jsonl")
    weights = args.out / "model.safetensors"
    report = {
        "command": f"python -m recipes.nano --minutes {args.minutes:g} --seed {args.seed}"
        f" --threads {args.threads} --samples {args.samples}",
        "machine": machine(),
        "torch": torch.__version__,
        "weights_bytes": weights.stat().st_size,
        "training": {
            "minutes": round(at["spent"] / 60, 1),
            "steps": int(at["step"]),
            "tokens": int(at["tokens"]),
            "tokens_per_second": round(at["tokens"] / at["spent"]),
            "first_said_loss": rows[0]["said_loss"],
            "last_said_loss": rows[-1]["said_loss"],
        },
        "scores": scores,
    }
    text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
    (HERE / "report.json").write_text(text, encoding="utf-8")
    (HERE / "REPORT.md").write_text(markdown(report), encoding="utf-8")


def markdown(report: dict) -> str:
    """The report for people."""
    training = report["training"]
    lines = [
        "# freehold-nano: what the recipe printed",
        "",
        f"Command: `{report['command']}`, on {report['machine']}, torch {report['torch']}.",
        f"Trained {training['minutes']} minutes: {training['steps']} steps,"
        f" {training['tokens']} tokens ({training['tokens_per_second']} a second);"
        f" loss on the assistant's words {training['first_said_loss']} →"
        f" {training['last_said_loss']}. Weights: {report['weights_bytes']} bytes.",
        "",
        "Names in these questions are never in the training data. 1 is all of them.",
        "",
        "| | English | Chinese |",
        "|---|---|---|",
    ]
    for key in KEYS:
        en, zh = (report["scores"][lang][key] for lang in ("en", "zh"))
        lines.append(f"| {key.replace('_', ' ')} | {en:.3f} | {zh:.3f} |")
    lines += ["", "Examples, the first ones of each kind, not chosen:", ""]
    for lang in ("en", "zh"):
        for example in report["scores"][lang]["examples"]:
            lines += ["```", example["asked"], "→ " + example["said"], "```", ""]
    return "\n".join(lines)
