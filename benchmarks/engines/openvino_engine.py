"""OpenVINO GenAI in this process, through its continuous batching. Read `columns.py` first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import columns
import numpy as np
import openvino as ov
import openvino_genai as genai


class OpenVino:
    can_prepare = False

    def __init__(self, plan: dict[str, Any]) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = 512
        scheduler.max_num_seqs = 64
        scheduler.cache_size = 1  # GiB
        scheduler.dynamic_split_fuse = True
        self.path = Path(plan["path"])
        threads = {"INFERENCE_NUM_THREADS": plan["threads"]}
        self.pipeline = genai.ContinuousBatchingPipeline(str(self.path), scheduler, "CPU", threads)
        self.num_requests = 0

    def generate(
        self, prompts: list[list[int]], num_tokens: int, is_prepared: bool
    ) -> list[list[float]]:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = num_tokens, True, False
        started = time.perf_counter()
        handles = []
        for token_ids in prompts:
            self.num_requests += 1
            tensor = ov.Tensor(np.array([token_ids], np.int64))
            handles.append(self.pipeline.add_request(self.num_requests, tensor, config))
        times: list[list[float]] = [[] for _ in prompts]
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            now = time.perf_counter() - started
            for handle, stream in zip(handles, times, strict=True):
                if handle.can_read():
                    stream += [now for _ in next(iter(handle.read().values())).generated_ids]
        return times

    def facts(self) -> dict[str, Any]:
        return {"weight_bytes": (self.path / "openvino_model.bin").stat().st_size}


if __name__ == "__main__":
    columns.main(OpenVino)
