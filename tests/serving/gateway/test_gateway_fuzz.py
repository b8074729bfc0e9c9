"""Whatever JSON a client sends, the gateway answers 200 or one clear 4xx; never a 500."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.gateway.bodies import CHAT_FIELDS, COMPLETION_FIELDS, bodies, json_values
from tests.serving.gateway.fake_orchestrator import MODEL
from tests.serving.gateway.house import keeping_house

from freehold.errors import InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.gateway.generation import Generation
from freehold.serving.gateway.metrics import Metrics
from freehold.serving.gateway.requests import ChatBody, CompletionBody, TokenizeBody
from freehold.serving.gateway.schema import parse_json_object

RELAXED = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def refusal(act) -> InvalidRequest | None:
    """The refusal, its sentence checked; None when the body was taken. Nothing else may happen."""
    try:
        act()
    except InvalidRequest as error:
        refused = error
    else:
        return None
    assert refused.status == 400
    assert refused.message.endswith(".")
    assert "\n" not in refused.message
    assert len(refused.message) < 300
    return refused


def accept_or_refuse(read, data: bytes) -> None:
    """What is taken also fits protobuf."""
    specs = []
    if refusal(lambda: specs.append(read(parse_json_object(data)))):
        return
    spec = specs[0]
    generation = Generation(None, "r", spec, Metrics(), 1.0)
    for stream in range(spec.num_streams):
        request = generation._request(stream)
        assert pb.GenerateRequest.FromString(request.SerializeToString()) == request


@RELAXED
@given(bodies(CHAT_FIELDS))
def test_any_chat_body_is_a_request_or_a_clear_refusal(body):
    accept_or_refuse(lambda b: ChatBody.parse(b).spec(), orjson.dumps(body))


@RELAXED
@given(bodies(COMPLETION_FIELDS))
def test_any_completion_body_is_a_request_or_a_clear_refusal(body):
    accept_or_refuse(lambda b: CompletionBody.parse(b).spec(), orjson.dumps(body))


@RELAXED
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_clear_refusal(data):
    accept_or_refuse(lambda b: ChatBody.parse(b).spec(), data)


@RELAXED
@given(st.dictionaries(st.sampled_from(["model", "prompt", "messages", "x"]), json_values()))
def test_any_tokenize_body_is_a_request_or_a_clear_refusal(body):
    refusal(lambda: TokenizeBody.parse(body).check())


def test_the_fuzzed_bodies_reach_both_outcomes():
    """Else the tests above would show nothing."""
    outcomes = set()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(bodies(CHAT_FIELDS))
    def run(body):
        refused = refusal(lambda: ChatBody.parse(body).spec())
        outcomes.add("taken" if refused is None else refused.param)

    run()
    assert "taken" in outcomes
    assert len(outcomes) > 10


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_over_the_wire_never_a_500(tmp_path, path):
    fields = CHAT_FIELDS if "chat" in path else COMPLETION_FIELDS
    runner = asyncio.Runner()
    keeping = keeping_house(tmp_path)
    house = runner.run(keeping.__aenter__())

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(bodies(fields))
    def run(body):
        if isinstance(body.get("max_tokens"), int):
            body["max_tokens"] = min(body["max_tokens"], 5)
        body.pop("max_completion_tokens", None)
        response = runner.run(house.http.post(path, content=orjson.dumps(body)))
        known = body.get("model") == MODEL
        assert response.status_code in ((200, 400) if known else (400, 404)), response.text
        if response.status_code != 200:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    try:
        run()
    finally:
        runner.run(keeping.__aexit__(None, None, None))
        runner.close()
