"""Freehold in this process, driven through `Engine.step`. Read `columns.py` first."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import columns
import quoting

from freehold.engine import EngineConfig, Request, load_engine
from freehold.model.inspect import inspect
from freehold.ops.create import create
from freehold.types import SamplingParams, Speculate, WeightFormat


class Freehold:
    can_prepare = True  # by the prefix cache

    def __init__(self, plan: dict[str, Any]) -> None:
        self.path, self.format = Path(plan["path"]), WeightFormat(plan["format"])
        self.ops = create("native", num_threads=plan["threads"])
        loaded = load_engine(
            self.path,
            quantize=self.format,
            ops=self.ops,
            config=EngineConfig(num_blocks=plan["cache_tokens"] // 16, speculate=Speculate.OFF),
        )
        self.engine, self.tokenizer = loaded.engine, loaded.tokenizer
        self.model = loaded.engine._runner._model
        self.cache_tokens = plan["cache_tokens"]
        self.num_requests = 0

    def generate(
        self, prompts: list[list[int]], num_tokens: int, is_prepared: bool
    ) -> list[list[float]]:
        if is_prepared:
            self.generate(prompts, 1, False)
        # Those that start first go on until the last has its tokens, then all are cancelled.
        sampling = SamplingParams(max_tokens=3 * num_tokens, temperature=0.0, ignore_eos=True)
        times: dict[str, list[float]] = {}
        started = time.perf_counter()
        for token_ids in prompts:
            self.num_requests += 1
            name = str(self.num_requests)
            times[name] = []
            self.engine.add(Request(name, token_ids, sampling))
        while min(map(len, times.values())) < num_tokens:
            for event in self.engine.step():
                times[event.request_id].append(time.perf_counter() - started)
        for name in times:
            self.engine.cancel(name)
        self.engine.step()
        return list(times.values())

    def quoting(self, seed: int) -> dict[str, float]:
        return quoting.measure(self.model, self.tokenizer, seed)

    def facts(self) -> dict[str, Any]:
        report = inspect(self.path, self.format)
        config = json.loads((self.path / "config.json").read_text())
        vocabulary = config["vocab_size"] * config["hidden_size"]
        vocabulary *= 1 if config["tie_word_embeddings"] else 2
        context = columns.NUM_PROMPT_TOKENS + columns.NUM_DECODE_TOKENS // 2
        held = report.loaded_bytes_by_kind
        return {
            "ops": self.ops.name,
            "weight_bytes": sum(held.values()) - held["embedding"],  # that one stays in the file
            "cache_bytes": report.kv_bytes_per_token * self.cache_tokens,
            "step_bytes": report.read_bytes_per_token + report.kv_bytes_per_token * context,
            "operations_per_prompt_token": 2 * (report.num_active_parameters - vocabulary),
        }


if __name__ == "__main__":
    columns.main(Freehold)
