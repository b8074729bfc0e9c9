"""transformers in this process, BF16 on torch's CPU kernels (oneDNN). Read `columns.py` first.

Streams are one batch of prompts of one length: what its users get without a server around it.
"""

from __future__ import annotations

import time
from typing import Any

import columns
import torch
from transformers import AutoModelForCausalLM


class Transformers:
    can_prepare = False

    def __init__(self, plan: dict[str, Any]) -> None:
        torch.set_num_threads(plan["threads"])
        self.model = AutoModelForCausalLM.from_pretrained(
            plan["path"], dtype=torch.bfloat16, local_files_only=True
        )
        self.model.eval()

    @torch.inference_mode()
    def generate(
        self, prompts: list[list[int]], num_tokens: int, is_prepared: bool
    ) -> list[list[float]]:
        tokens, cache = torch.tensor(prompts), None
        times: list[float] = []
        started = time.perf_counter()
        while len(times) < num_tokens:
            step = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = step.past_key_values
            tokens = step.logits[:, -1].argmax(-1, keepdim=True)
            times.append(time.perf_counter() - started)
        return [times for _ in prompts]

    def facts(self) -> dict[str, Any]:
        return {"weight_bytes": sum(p.nbytes for p in self.model.parameters())}


if __name__ == "__main__":
    columns.main(Transformers)
