"""llama.cpp in this process at its best, through llama-cpp-python's low-level API.

As llama-batched-bench drives it: one llama_batch with a sequence a stream, a context made for just
as many streams, keys of equal prompts copied, and no sampling charged (tokens are given, not
drawn; their logits are computed). A prompt joins as soon as the batch of 512 has room.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import columns
import llama_cpp as llama

MAX_BATCH = 512
QUIET = llama.llama_log_callback(lambda level, text, data: None)


@dataclass(eq=False)
class Stream:
    tokens: list[int]
    num_computed: int = 0
    times: list[float] = field(default_factory=list)


class LlamaCpp:
    can_prepare = True  # by copying the first stream's keys

    def __init__(self, plan: dict[str, Any]) -> None:
        llama.llama_log_set(QUIET, None)
        llama.llama_backend_init()
        self.plan = plan
        self.model = llama.llama_model_load_from_file(
            plan["path"].encode(), llama.llama_model_default_params()
        )
        self.batch = llama.llama_batch_init(MAX_BATCH, 0, 1)
        self.context, self.made_for = None, (0, 0)
        self._make_context(64, plan["cache_tokens"] // 64)

    def _make_context(self, num_streams: int, tokens_per_stream: int) -> None:
        # llama.cpp rounds a sequence up to 256 cells.
        if self.made_for == (num_streams, tokens_per_stream):
            return
        if self.context is not None:
            llama.llama_free(self.context)
        params = llama.llama_context_default_params()
        params.n_ctx = num_streams * tokens_per_stream
        params.n_seq_max = num_streams
        params.n_batch = params.n_ubatch = MAX_BATCH
        params.n_threads = params.n_threads_batch = self.plan["threads"]
        params.flash_attn_type = 1  # on: as fast or faster in every column we tried
        params.no_perf = True
        self.context = llama.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp made no context"
        self.made_for = (num_streams, tokens_per_stream)

    def generate(
        self, prompts: list[list[int]], num_tokens: int, is_prepared: bool
    ) -> list[list[float]]:
        longest = max(map(len, prompts)) + num_tokens
        self._make_context(len(prompts), -(-longest // 256) * 256)
        memory = llama.llama_get_memory(self.context)
        llama.llama_memory_clear(memory, False)
        streams = [Stream(list(tokens)) for tokens in prompts]
        if is_prepared:
            self._step(streams[:1], time.perf_counter())
            for i, stream in enumerate(streams):
                stream.tokens = streams[0].tokens[:-1] + columns.prompt(1, i)
                stream.num_computed, stream.times = streams[0].num_computed, []
                if i:
                    llama.llama_memory_seq_cp(memory, 0, i, -1, -1)
        started = time.perf_counter()
        while any(len(stream.times) < num_tokens for stream in streams):
            self._step([s for s in streams if len(s.times) < num_tokens], started, streams)
        return [stream.times for stream in streams]

    def _step(
        self, live: list[Stream], started: float, streams: list[Stream] | None = None
    ) -> None:
        """Those that decode first, then prompts in order while the batch has room."""
        batch, streams = self.batch, streams or live
        batch.n_tokens = 0
        complete = []
        for stream in sorted(live, key=lambda s: len(s.tokens) - s.num_computed > 1):
            room = MAX_BATCH - batch.n_tokens
            start, stop = stream.num_computed, min(len(stream.tokens), stream.num_computed + room)
            for position in range(start, stop):
                i = batch.n_tokens
                batch.token[i], batch.pos[i] = stream.tokens[position], position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, streams.index(stream)
                batch.logits[i] = position == len(stream.tokens) - 1
                batch.n_tokens += 1
            stream.num_computed = stop
            if start < stop == len(stream.tokens):
                complete.append(stream)
        assert llama.llama_decode(self.context, batch) == 0
        llama.llama_synchronize(self.context)
        now = time.perf_counter() - started
        for stream in complete:
            stream.times.append(now)
            index = streams.index(stream)
            stream.tokens += columns.prompt(1, (index, len(stream.times)))

    def facts(self) -> dict[str, Any]:
        return {"weight_bytes": llama.llama_model_size(self.model)}


if __name__ == "__main__":
    columns.main(LlamaCpp)
