"""Writes the random checkpoint of `checkpoints.py` as OpenVINO IR: INT4 in symmetric groups of 64
as ours, embeddings and head INT8. Needs optimum-intel, nncf and torch:

    python benchmarks/openvino_peer.py CHECKPOINT_DIRECTORY OUT_DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig


def write(checkpoint: Path, target: Path) -> None:
    quantization = OVWeightQuantizationConfig(bits=4, sym=True, group_size=64, ratio=1.0)
    model = OVModelForCausalLM.from_pretrained(
        checkpoint,
        export=True,
        compile=False,
        quantization_config=quantization,
        local_files_only=True,
        library_name="transformers",
        task="text-generation-with-past",
    )
    model.save_pretrained(target)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
