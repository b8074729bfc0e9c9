"""Numbering: old attempts are fenced, repeats dropped, gaps refused; and what a resume sends."""

from __future__ import annotations

import pytest

from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.orchestrator.dispatch import make_ticket, prefix_key
from freehold.serving.orchestrator.ledger import SequenceGap, StreamLedger


def ledger() -> StreamLedger:
    sampling = pb.SamplingParams(seed=1, prompt_logprobs=2)
    return StreamLedger(pb.GenerateRequest(request_id="r", text="x", sampling=sampling))


def token(sequence: int, attempt: int = 0, token_id: int = 9) -> pb.GenerateEvent:
    event = pb.GenerateEvent(request_id="r", attempt=attempt, sequence=sequence)
    event.token.token_id = token_id
    return event


def started(attempt: int = 0, revision: str = "a") -> pb.GenerateEvent:
    return pb.GenerateEvent(attempt=attempt, started=pb.Started(revision=revision))


def test_a_delayed_event_of_an_old_attempt_is_dropped():
    book = ledger()
    assert book.accept(token(0))
    book.next_attempt()
    assert not book.accept(token(1, attempt=0, token_id=1))
    assert not book.accept(pb.GenerateEvent(attempt=0, finished=pb.Finished(reason="stop")))
    assert not book.accept(pb.GenerateEvent(attempt=0, error=pb.Error(code="unavailable")))
    assert book.accept(token(1, attempt=1, token_id=2))
    assert book.token_ids == [9, 2]
    assert not book.is_finished


def test_a_token_seen_before_is_dropped_and_a_gap_is_an_error():
    book = ledger()
    assert book.accept(token(0))
    assert not book.accept(token(0, token_id=8))
    with pytest.raises(SequenceGap):
        book.accept(token(2))
    assert book.token_ids == [9]


def test_only_the_first_start_is_told_and_fixes_the_revision():
    book = ledger()
    assert book.accept(started(revision="a"))
    book.next_attempt()
    assert not book.accept(started(attempt=1, revision="b"))
    assert book.revision == "a"


def test_a_resume_sends_prompt_ids_revision_and_seed_but_asks_no_prompt_logprobs_again():
    book = ledger()
    first = book.worker_request(0.0)
    assert first.sampling.HasField("prompt_logprobs")
    assert not first.revision
    book.accept(started())
    book.accept(token(0))
    book.next_attempt()
    again = book.worker_request(2.5)
    assert (again.attempt, list(again.resume_token_ids), again.revision) == (1, [9], "a")
    assert (again.text, again.sampling.seed, again.timeout_seconds) == ("x", 1, 2.5)
    assert not again.sampling.HasField("prompt_logprobs")


def test_nothing_follows_the_end():
    book = ledger()
    assert book.accept(pb.GenerateEvent(finished=pb.Finished(reason="stop")))
    assert not book.accept(token(0))


def chat(*messages: tuple[str, str], model: str = "m") -> pb.GenerateRequest:
    request = pb.GenerateRequest(model=model)
    for role, content in messages:
        request.chat.messages.add(role=role, content=content)
    return request


def test_the_turns_of_a_chat_share_a_prefix_key_and_others_do_not():
    first = chat(("system", "be kind"), ("user", "hello"))
    second = chat(("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "bye"))
    assert prefix_key(first) == prefix_key(second)
    assert prefix_key(first) != prefix_key(chat(("system", "be kind"), ("user", "other")))
    assert prefix_key(first) != prefix_key(
        chat(("system", "be kind"), ("user", "hello"), model="n")
    )
    long = "word " * 1000
    text = pb.GenerateRequest(model="m", text=long)
    assert prefix_key(text) == prefix_key(pb.GenerateRequest(model="m", text=long + "more"))


def test_a_ticket_costs_its_prompt_and_its_output_up_to_a_bound():
    request = pb.GenerateRequest(model="m", tokens=pb.TokenIds(ids=range(50)))
    request.sampling.max_tokens = 20
    assert make_ticket(request).cost_tokens == 70
    request.sampling.max_tokens = 1 << 31
    assert make_ticket(request).cost_tokens == 50 + 1024
