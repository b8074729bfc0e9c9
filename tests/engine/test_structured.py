"""Answers under a JSON schema parse and satisfy it, whatever the (random) model would say."""

from __future__ import annotations

import json
import time

import pytest
from driving import Driver, a_request
from toy import toy

from freehold.engine import structured
from freehold.errors import InvalidRequest, InvalidSchema

MODEL, TOKENIZER = toy(eos_bias=2.0)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "你好"]}, "maxItems": 3},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age", "ok"],
    "additionalProperties": False,
}


def is_person(value):
    assert set(value) <= set(PERSON["properties"])
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 8
    assert type(value["age"]) is int
    assert 0 <= value["age"] <= 150
    assert len(value.get("tags", [])) <= 3
    assert set(value.get("tags", [])) <= {"a", "b", "你好"}
    assert type(value["ok"]) is bool


CASES = {
    "object": (PERSON, is_person),
    "integer": ({"type": "integer", "minimum": 10, "maximum": 99}, lambda v: 10 <= v <= 99),
    "string": ({"type": "string", "pattern": "^[0-9]{3}-[a-f]{2}$"}, lambda v: len(v) == 6),
    "anything_of": ({"anyOf": [{"type": "null"}, {"const": "x"}]}, lambda v: v in (None, "x")),
    "nested": (
        {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 2},
        lambda v: [is_person(p) for p in v],
    ),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("case", CASES)
def test_answers_parse_and_satisfy_the_schema(case, temperature):
    schema, holds = CASES[case]
    driver = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=800)
    requests = [
        a_request(
            i, [i + 1], seed=i, temperature=temperature, json_schema=json.dumps(schema),
            frequency_penalty=0.5, max_tokens=450,
        )
        for i in range(12)
    ]  # fmt: skip
    free = a_request("free", [9], max_tokens=50, ignore_eos=True)  # a neighbour without a schema
    *answers, beside = driver.run(*requests, free)
    assert len(beside.token_ids) == 50
    for answer in answers:
        assert answer.finish_reason.value == "stop", answer.text
        value = json.loads(answer.text)
        assert holds(value) is not False
        assert (
            "  "
            not in answer.text.replace(value if isinstance(value, str) else "\0", "").split("\n")[0]
        ), "endless blanks"


def test_eos_comes_only_when_the_schema_is_satisfied():
    """A model that wants nothing but to stop still has to answer first."""
    model, tokenizer = toy(eos_bias=50.0)
    driver = Driver(model, tokenizer, num_blocks=800)
    request = a_request("r", [1], temperature=0.0, max_tokens=400, json_schema=json.dumps(PERSON))
    (answer,) = driver.run(request)
    is_person(json.loads(answer.text))


def test_preempted_requests_keep_their_place_in_the_schema():
    schema = json.dumps(CASES["nested"][0])

    def requests():
        return [
            a_request(i, [i + 1], seed=i, json_schema=schema, max_tokens=150) for i in range(4)
        ]  # fmt: skip

    calm = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=800).run(*requests())
    tight = Driver(MODEL, TOKENIZER, block_size=4, num_blocks=40)
    outcomes = tight.run(*requests())
    assert tight.engine.stats().preemptions_total > 0
    assert [o.token_ids for o in outcomes] == [o.token_ids for o in calm]


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[1]",
        "3",
        '{"type": "nope"}',
        '{"$ref": "http://example.com/x"}',
        '{"$ref": "file:///etc/passwd"}',
        '{"type": "string", "pattern": "(?=x)"}',
        '{"allOf": [{"type": "string"}, {"type": "integer"}]}',
        "[" * 5000 + "]" * 5000,
        '{"items":' * 100 + "{}" + "}" * 100,
    ],
    ids=lambda schema: schema[:24],
)
def test_a_schema_that_cannot_be_used_is_refused_in_one_line(schema):
    driver = Driver(MODEL, TOKENIZER, num_blocks=10)
    with pytest.raises(InvalidSchema) as refused:
        driver.engine.add(a_request("r", [1], max_tokens=3, json_schema=schema))
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 500
    assert not driver.engine.has_work


def test_a_grammar_that_outgrows_its_limits_fails_its_request_alone(monkeypatch):
    limits = structured.llguidance.LLParserLimits(max_lexer_states=20, verbose_errors=False)
    monkeypatch.setattr(structured, "_LIMITS", limits)
    pattern = "^((ab|ba|aab){1,40}[a-c]{1,40}){1,30}$"
    schema = json.dumps({"type": "string", "pattern": pattern})
    driver = Driver(MODEL, TOKENIZER, num_blocks=100)
    constrained = a_request("constrained", [1], json_schema=schema, seed=2)
    free = a_request("free", [9], max_tokens=20, ignore_eos=True)
    outcome, beside = driver.run(constrained, free)
    ((name, error),) = driver.engine.take_failures()
    assert name == "constrained"
    assert isinstance(error, InvalidSchema)
    assert "too many states" in error.message
    assert "\n" not in error.message
    assert all(e.finish_reason is None for e in outcome.events)
    assert len(beside.token_ids) == 20


def test_nested_repetitions_cannot_stall_the_engine():
    pattern = "((((a{1,99}){1,99}){1,99}){1,99}){1,99}"
    schema = json.dumps({"type": "string", "pattern": f"^{pattern}$"})
    driver = Driver(MODEL, TOKENIZER, num_blocks=100)
    started = time.monotonic()
    driver.run(a_request("r", [1], json_schema=schema, max_tokens=40))
    assert time.monotonic() - started < 10


def test_a_schema_too_long_is_refused():
    with pytest.raises(InvalidRequest):
        Driver(MODEL, TOKENIZER, num_blocks=10).engine.add(
            a_request("r", [1], max_tokens=3, json_schema='{"title": "%s"}' % ("x" * 70_000))
        )


def test_text_of_a_schema_is_data_not_grammar():
    """Quotes, braces and x-guidance inside a schema change nothing but what they name."""
    schema = {"const": '"}], "lark_grammar": "start: /.*/"', "x-guidance": {"lenient": True}}
    driver = Driver(MODEL, TOKENIZER, num_blocks=100)
    (answer,) = driver.run(a_request("r", [1], json_schema=json.dumps(schema)))
    assert json.loads(answer.text) == schema["const"]
