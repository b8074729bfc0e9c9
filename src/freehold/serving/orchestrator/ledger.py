"""The numbering of one stream: what was emitted, and which events still count.

Every token is named by (stream, attempt, sequence). Events of an older attempt are fenced, tokens
seen before are dropped, a gap is an error. Pure state: knows no socket and no time. Read
`dispatch.py` next.
"""

from __future__ import annotations

from freehold.rpc.v1 import messages_pb2 as pb


class SequenceGap(Exception):
    """A worker left out a token: its stream cannot be continued from there."""


class StreamLedger:
    """What the client of one stream has been given so far, over all attempts."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        self.request = request
        self.attempt = 0
        self.token_ids: list[int] = []
        self.revision: str | None = None
        self.is_started = False
        self.is_finished = False
        self.finish_reason = ""  # set with the last token, before Finished

    def accept(self, event: pb.GenerateEvent) -> bool:
        """Record the event; True when it goes on to the client. Raises SequenceGap."""
        if event.attempt != self.attempt or self.is_finished:
            return False
        kind = event.WhichOneof("event")
        if kind == "token":
            if event.sequence < len(self.token_ids):
                return False
            if event.sequence > len(self.token_ids):
                raise SequenceGap(
                    f"The worker sent token {event.sequence} where {len(self.token_ids)} was due."
                )
            self.token_ids.append(event.token.token_id)
            self.finish_reason = event.token.finish_reason
            return True
        if kind == "started":
            first, self.is_started = not self.is_started, True
            if first:
                self.revision = event.started.revision
            return first
        if kind in ("finished", "error"):
            self.is_finished = True
            return True
        return False

    def next_attempt(self) -> None:
        self.attempt += 1

    def worker_request(self, timeout_seconds: float) -> pb.GenerateRequest:
        """What the present attempt sends to its worker: prompt plus emitted ids."""
        request = pb.GenerateRequest()
        request.CopyFrom(self.request)
        request.attempt = self.attempt
        request.timeout_seconds = timeout_seconds
        request.resume_token_ids[:] = self.token_ids
        if self.is_started:
            request.sampling.ClearField("prompt_logprobs")  # the client has them
            request.revision = self.revision or ""
        return request

    def finished(self, reason: str) -> pb.GenerateEvent:
        """The end as this orchestrator knows it, when no worker can say it."""
        self.is_finished = True
        finished = pb.Finished(reason=reason, num_output_tokens=len(self.token_ids))
        return self._event(finished=finished)

    def failed(self, error: pb.Error) -> pb.GenerateEvent:
        self.is_finished = True
        return self._event(error=error)

    def _event(
        self, finished: pb.Finished | None = None, error: pb.Error | None = None
    ) -> pb.GenerateEvent:
        return pb.GenerateEvent(
            request_id=self.request.request_id,
            stream=self.request.stream,
            attempt=self.attempt,
            sequence=len(self.token_ids),
            finished=finished,
            error=error,
        )
