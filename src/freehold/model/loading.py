"""From a checkpoint directory to a model. Knows no requests, and no memory limits: `memory.py`
refuses before this is called. Read `architectures.py` next.
"""

from __future__ import annotations

from pathlib import Path

from freehold.model.architectures import build_model
from freehold.model.checkpoint import Checkpoint
from freehold.model.model import Model
from freehold.ops import Ops
from freehold.types import WeightFormat


def load_model(path: str | Path, *, ops: Ops, quantize: WeightFormat | None = None) -> Model:
    """Read a Hugging Face directory. `quantize` None: 16 bits, float32 on the reference.

    Raises UnsupportedArchitecture, or CheckpointError naming the file, field or tensor.
    """
    checkpoint = Checkpoint.open(path)
    return build_model(checkpoint.config, checkpoint, ops=ops, quantize=quantize)
