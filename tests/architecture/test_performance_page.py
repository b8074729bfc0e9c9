"""docs/performance.md says what benchmarks/results hold, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_performance_page_shows_the_results_as_they_are() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
