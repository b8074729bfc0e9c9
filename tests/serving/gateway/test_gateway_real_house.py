"""Gateway, orchestrator and worker as real processes on a tiny checkpoint; unmodified clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from tests.model import tiny
from websockets.asyncio.client import connect

from freehold.serving.gateway.keys import KeyStore

pytestmark = pytest.mark.e2e

MODEL = "tiny"
MESSAGES = [{"role": "user", "content": "What is the capital of the moon?"}]


class Process:
    """`freehold VERB …`, started and awaited until it has told its address."""

    def __init__(self, home: Path, verb: str, *arguments: str) -> None:
        ready_file = home / f"{verb}-{time.monotonic_ns()}.ready"
        command = [sys.executable, "-m", "freehold", verb, "--port", "0", *arguments]
        environment = os.environ | {"FREEHOLD_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--ready-file", str(ready_file)], env=environment, cwd=home
        )
        deadline = time.monotonic() + 60
        while not ready_file.exists():
            assert self.process.poll() is None, f"{verb} ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"{verb} was not ready in time"
            time.sleep(0.05)
        self.address = ready_file.read_text().strip()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@dataclass
class RealHouse:
    home: Path
    orchestrator: Process
    gateway: Process
    key: str

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def worker_metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        prefix = f"freehold_worker_{name}{{"
        return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith(prefix))

    def wait_until_idle(self) -> None:
        """The workers' figures come with their heartbeats."""
        deadline = time.monotonic() + 10
        while self.worker_metric("num_running") or self.worker_metric("num_waiting"):
            assert time.monotonic() < deadline, "the workers still compute"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    home = tmp_path_factory.mktemp("house")
    tiny.write_checkpoint(home / "model", "deepseek_v3")
    key = KeyStore(home / "keys.db").add("test")
    started: list[Process] = []

    def start(verb: str, *arguments: str) -> Process:
        started.append(Process(home, verb, *arguments))
        return started[-1]

    try:
        orchestrator = start("orchestrator")
        to = ("--orchestrator", orchestrator.address)
        model = ("--model", str(home / "model"), "--name", MODEL, "--context", "384")
        start("worker", *to, *model, "--ops", "reference", "--quantize", "float32")
        house = RealHouse(home, orchestrator, start("gateway", *to), key)
        deadline = time.monotonic() + 30
        while httpx.get(f"{house.url}/health").status_code != 200:
            assert time.monotonic() < deadline, "no worker registered"
            time.sleep(0.1)
        yield house
    finally:
        codes = [process.stop() for process in reversed(started)]
    assert codes == [0, 0, 0]


def ask(house, **fields):
    request = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "seed": 5} | fields
    return house.client().chat.completions.create(**request)


def test_stream_and_whole_answer_are_the_same_for_a_seed(real):
    whole = ask(real)
    chunks = list(ask(real, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(text) > 0
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.system_fingerprint


def test_usage_counts_the_tokens_that_tokenize_counts(real):
    body = {"model": MODEL, "messages": MESSAGES}
    reply = httpx.post(f"{real.url}/tokenize", headers=real.headers, json=body).json()
    assert reply["count"] == len(reply["tokens"]) == ask(real).usage.prompt_tokens
    assert reply["max_model_len"] == 384


def test_choices_repeat_the_answers_of_their_seeds(real):
    three = ask(real, n=3)
    alone = [ask(real, seed=5 + i).choices[0].message.content for i in range(3)]
    assert [choice.message.content for choice in three.choices] == alone
    assert len(set(alone)) == 3
    assert three.usage.completion_tokens >= 3


def test_logprobs_belong_to_the_answers_tokens(real):
    greedy = ask(real, temperature=0, logprobs=True, top_logprobs=3)
    content = greedy.choices[0].logprobs.content
    assert len(content) == greedy.usage.completion_tokens
    for entry in content:
        assert entry.logprob <= 0
        assert entry.top_logprobs[0].logprob == entry.logprob  # greedy takes the likeliest
        assert bytes(entry.bytes).decode(errors="replace") == entry.token


def test_a_stop_string_ends_the_answer_before_it(real):
    whole = ask(real, temperature=0).choices[0].message.content
    stop = whole[3:6]
    cut = ask(real, temperature=0, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == whole[: whole.index(stop)]


def test_an_answer_follows_its_json_schema(real):
    schema = {
        "type": "object",
        "properties": {"size": {"enum": ["small", "large"]}, "round": {"type": "boolean"}},
        "required": ["size", "round"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    reply = ask(real, response_format=form, max_tokens=100)
    value = json.loads(reply.choices[0].message.content)
    assert set(value) == {"size", "round"}
    assert value["size"] in ("small", "large")
    assert isinstance(value["round"], bool)


def test_echo_gives_the_prompt_its_logprobs(real):
    reply = real.client().completions.create(
        model=MODEL, prompt="Hello there", echo=True, logprobs=2, max_tokens=3, temperature=0
    )
    choice = reply.choices[0]
    assert choice.text.startswith("Hello there")
    logprobs = choice.logprobs
    assert len(logprobs.tokens) == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert "".join(logprobs.tokens[: reply.usage.prompt_tokens]) == "Hello there"
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    # The tiny vocabulary has ids without a text, which share a key.
    assert all(1 <= len(top) <= 2 for top in logprobs.top_logprobs[1:])


def test_closing_a_stream_frees_its_blocks(real):
    real.wait_until_idle()
    free = real.worker_metric("num_free_blocks")
    stream = ask(real, stream=True, max_tokens=300, n=4, extra_body={"ignore_eos": True})
    for _ in range(10):
        next(iter(stream))
    stream.close()
    real.wait_until_idle()
    assert real.worker_metric("num_free_blocks") == free
    output = real.worker_metric("output_tokens")
    time.sleep(1.5)
    assert real.worker_metric("output_tokens") == output  # nothing is computed for nobody


REFUSED = [
    ({"messages": [{"role": "user", "content": "long " * 400}]}, openai.BadRequestError, "384"),
    ({"max_tokens": 5000}, openai.BadRequestError, "384"),
    ({"model": "nobody"}, openai.NotFoundError, "nobody"),
    ({"logit_bias": {"99999": 1}}, openai.BadRequestError, "319"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wrong"}}}},
        openai.BadRequestError,
        "schema",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "error", "words"), REFUSED)
def test_what_only_the_worker_can_refuse_is_a_clear_status(real, fields, error, words, stream):
    if "json_schema" in str(fields):
        fields["response_format"]["json_schema"].setdefault("name", "x")
    with pytest.raises(error) as caught:
        ask(real, stream=stream, **fields)
    assert words in caught.value.body["message"]
    assert str(real.home) not in caught.value.response.text


async def test_websocket_streams_and_cancels(real):
    url = f"ws://{real.gateway.address}/v1/stream"
    async with connect(url, additional_headers=real.headers, compression=None) as socket:
        request = {"type": "start", "model": MODEL, "messages": MESSAGES, "seed": 5}
        await socket.send(json.dumps(request | {"id": "a", "max_tokens": 24}))
        frames = [json.loads(await socket.recv())]
        while frames[-1]["type"] == "token":
            frames.append(json.loads(await socket.recv()))
        *tokens, usage = frames
        whole = await asyncio.to_thread(ask, real)
        assert "".join(t["text"] for t in tokens) == whole.choices[0].message.content
        assert usage["completion_tokens"] == whole.usage.completion_tokens
        await socket.send(json.dumps(request | {"id": "b", "ignore_eos": True}))
        assert json.loads(await socket.recv())["type"] == "token"
        await socket.send('{"type": "cancel", "id": "b"}')
        while (frame := json.loads(await socket.recv()))["type"] == "token":
            pass
        assert frame == {"type": "cancel", "id": "b"}


def test_a_gateway_told_to_stop_finishes_its_answer_and_leaves_with_0(real):
    gateway = Process(real.home, "gateway", "--orchestrator", real.orchestrator.address)
    leaving = RealHouse(real.home, real.orchestrator, gateway, real.key)
    stream = ask(leaving, stream=True, max_tokens=150, extra_body={"ignore_eos": True})
    chunks = [next(iter(stream))]
    gateway.process.send_signal(signal.SIGTERM)
    chunks.extend(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert gateway.process.wait(10) == 0


def test_a_gateway_that_cannot_start_says_why_and_leaves_nothing(real):
    port = real.gateway.address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "freehold", "gateway", "--port", port]
    environment = os.environ | {"FREEHOLD_HOME": str(real.home)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert "Cannot listen" in ended.stderr
    assert "Traceback" not in ended.stderr
