"""Makes `tests/model/tiny.py` (random tiny checkpoints) importable here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "model"))
