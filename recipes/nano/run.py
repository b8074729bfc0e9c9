"""The whole recipe on one command: tokenizer, training, export, measuring, report.

    python -m recipes.nano --minutes 45

Each step's result is on disk, so that a run that is stopped resumes where it stood.
"""

import argparse
import ctypes
from pathlib import Path

import torch
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "freehold" / "models" / "nano"


def keep_freed_memory() -> None:
    """Tell glibc to hand large blocks out again instead of unmapping them after each step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    """Run every step that is asked for."""
    from recipes.nano import tokenizer as bpe
    from recipes.nano.train import train

    parser = argparse.ArgumentParser(prog="python -m recipes.nano", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="training time by the clock")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=ROOT / ".scratch" / "nano")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="where the checkpoint goes")
    parser.add_argument("--samples", type=int, default=100, help="measured chats of each kind")
    args = parser.parse_args()

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    args.scratch.mkdir(parents=True, exist_ok=True)
    if not (args.scratch / "tokenizer.json").exists():
        bpe.write_tokenizer(bpe.train_tokenizer(args.seed), args.scratch)
    tokenizer = Tokenizer.from_file(str(args.scratch / "tokenizer.json"))
    at = train(tokenizer, args.scratch, args.minutes, args.seed)

    from recipes.nano.evaluate import measure
    from recipes.nano.export import export
    from recipes.nano.report import write_report

    export(args.scratch, args.out)
    scores = measure(args.out, args.samples)
    write_report(args, at, scores)


if __name__ == "__main__":
    main()
