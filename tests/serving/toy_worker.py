"""The real worker over the real engine with the engine's toy model: no checkpoint, no kernels.

As a program it is a process to kill: python toy_worker.py --orchestrator HOST:PORT
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from toy import toy

from freehold.engine import Engine, EngineConfig
from freehold.errors import CheckpointError, TemplateError
from freehold.serving.worker import WorkerSettings, serve
from freehold.serving.worker.engine_backend import LoadedModel
from freehold.serving.worker.stream import ThinkTags


class ToyTemplate:
    """`opens` ends the prompt inside <think>, as DeepSeek-R1's template does."""

    def __init__(self, opens: bool):
        self._opens = opens

    def render(self, messages, add_generation_prompt=True):
        if any(m.role == "wrong" for m in messages):
            raise TemplateError("The template knows no role 'wrong'.")
        text = "".join(f"{m.role}: {m.content}\n" for m in messages)
        return text + "assistant: " + ("<think>\n" if self._opens else "")


PIECES = [b"<think>", b"</think>", b"<", b"/think>", b"</thi", b"nk>", b"think>", b"\n", b"a "]


def toy_loader(
    *, opens=False, think=False, step_seconds=0.0, eos_bias=-30.0, context=4096, defaults=None
):
    def load(path: Path, weight_format):
        if path.name == "broken":
            raise CheckpointError("The checkpoint has no config.json.")
        model, tokenizer = toy(context=context, eos_bias=eos_bias)
        if think:  # tags, and tags in pieces, in a third of all tokens
            tokenizer._bytes[:120] = [PIECES[i % len(PIECES)] for i in range(120)]
        if step_seconds:
            forward = model.forward

            def slow_forward(*args):
                time.sleep(step_seconds)
                return forward(*args)

            model.forward = slow_forward
        config = EngineConfig(num_blocks=1024, max_num_requests=8)
        revision = f"{path.name}-{weight_format or 'stored'}"
        engine = Engine(model, tokenizer, config, revision=revision)
        return LoadedModel(
            engine=engine,
            tokenizer=tokenizer,
            template=ToyTemplate(opens),
            think_tags=ThinkTags(is_known=think),
            revision=revision,
            architecture="Toy",
            weight_format=str(weight_format or "stored"),
            sampling_defaults=defaults or {},
        )

    return load


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--orchestrator", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--step-seconds", type=float, default=0.002)
    options = parser.parse_args()
    settings = WorkerSettings(
        model=Path("toy"), port=options.port, orchestrator=options.orchestrator
    )
    loader = toy_loader(step_seconds=options.step_seconds, opens=True, think=True)
    async with serve(settings, loader) as worker:
        print(worker.address, flush=True)
        await worker.failed


if __name__ == "__main__":
    asyncio.run(main())
