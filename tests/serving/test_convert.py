"""Protobuf and the types of the house agree, both ways."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold import errors
from freehold.errors import FreeholdError, InvalidRequest
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving import convert
from freehold.types import ChatMessage, SamplingParams, TokenLogprob


def all_errors(root=FreeholdError):
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += all_errors(child)
    return found


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_survives_the_wire(cls):
    for error in (cls("why"), cls("Größe 你", param="messages", retry_after_seconds=2.5)):
        sent = convert.error_to_proto(error)
        got = convert.error_from_proto(pb.Error.FromString(sent.SerializeToString()))
        assert type(got) is cls
        assert vars(got) == vars(error)
        assert (got.status, got.type, got.code) == (error.status, error.type, error.code)


def test_no_two_errors_share_a_code():
    codes = [cls.code for cls in all_errors()]
    assert sorted(codes) == sorted(set(codes) | {c for c in codes if c == "internal_error"})
    assert len(convert.ERROR_CLASS_BY_CODE) >= len(all_errors()) - 1


def test_an_error_of_unknown_code_keeps_its_words_and_status():
    got = convert.error_from_proto(pb.Error(status=418, type="t", code="teapot", message="short"))
    assert (got.status, got.type, got.code, got.message) == (418, "t", "teapot", "short")
    assert FreeholdError.status == 500


finite = {"allow_nan": False, "allow_infinity": False}
samplings = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(1, 1 << 31),
    temperature=st.floats(0, 100, **finite),
    top_p=st.floats(0, 1, exclude_min=True, **finite),
    top_k=st.integers(0, 1 << 31),
    min_p=st.floats(0, 1, **finite),
    presence_penalty=st.floats(-2, 2, **finite),
    frequency_penalty=st.floats(-2, 2, **finite),
    repetition_penalty=st.floats(0, 100, exclude_min=True, **finite),
    logit_bias=st.dictionaries(st.integers(0, (1 << 32) - 1), st.floats(-100, 100), max_size=4),
    seed=st.integers(0, (1 << 64) - 1),
    stop=st.lists(st.text(min_size=1, max_size=20), max_size=4).map(tuple),
    stop_token_ids=st.lists(st.integers(0, (1 << 32) - 1), max_size=4).map(tuple),
    include_stop_in_output=st.booleans(),
    ignore_eos=st.booleans(),
    num_logprobs=st.none() | st.integers(0, 20),
    prompt_logprobs=st.none() | st.integers(0, 20),
    json_schema=st.none() | st.just('{"type": "object"}'),
)


@given(samplings)
def test_sampling_survives_the_wire(sampling):
    sent = convert.sampling_to_proto(sampling).SerializeToString()
    assert convert.sampling_from_proto(pb.SamplingParams.FromString(sent)) == sampling


def test_every_sampling_field_has_a_place_in_the_protocol():
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    assert names == set(pb.SamplingParams.DESCRIPTOR.fields_by_name)


def test_what_is_left_open_is_the_models_and_else_plain():
    given = SamplingParams(top_p=0.5, min_p=0.1)
    proto = convert.sampling_to_proto(given, unset={"seed", "temperature", "top_k"})
    assert not proto.HasField("seed")
    defaults = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 7}
    expected = SamplingParams(temperature=0.6, top_p=0.5, min_p=0.1, max_tokens=7)
    assert convert.sampling_from_proto(proto, defaults) == expected
    assert convert.sampling_from_proto(pb.SamplingParams()) == SamplingParams()


def test_values_that_do_not_fit_are_an_invalid_request():
    with pytest.raises(InvalidRequest):
        convert.sampling_to_proto(SamplingParams(logit_bias={-1: 1.0}))
    with pytest.raises(InvalidRequest, match="top_p"):
        convert.sampling_from_proto(pb.SamplingParams(top_p=0.0))


def test_messages_and_logprobs_survive_the_wire():
    messages = [ChatMessage("system", "你好"), ChatMessage("user", "hi", "Ann")]
    assert convert.messages_from_proto(convert.messages_to_proto(messages)) == messages
    logprob = TokenLogprob(7, -0.25, "\ufffd", b"\xe4")
    assert convert.logprob_from_proto(convert.logprob_to_proto(logprob)) == logprob
