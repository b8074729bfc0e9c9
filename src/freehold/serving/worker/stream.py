"""One stream of the engine's token events as messages, reasoning told from answer.

On a resumed stream the tokens of earlier attempts are read again first, so that text goes on
where it stood. Knows no engine and no socket. Read `reasoning.py` next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freehold.engine.detokenizer import OutputText
from freehold.rpc.v1 import messages_pb2 as pb
from freehold.serving.convert import logprob_to_proto
from freehold.serving.worker.prompt import Prompt, Tokenizer
from freehold.serving.worker.reasoning import OPEN, ReasoningSplit
from freehold.types import FinishReason, SamplingParams, TokenEvent, TokenLogprob


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """What this model's template and tokenizer know of <think>."""

    is_known: bool = False
    open_token_id: int | None = None  # only where decoding hides it as a special token
    close_token_id: int | None = None

    def split(self, rendered_prompt: str) -> ReasoningSplit | None:
        """None when this model does not reason in tags."""
        if not self.is_known:
            return None
        return ReasoningSplit(
            is_open=rendered_prompt.rstrip().endswith(OPEN),
            open_token_id=self.open_token_id,
            close_token_id=self.close_token_id,
        )


class MessageStream:
    """`split` None: all text is answer."""

    def __init__(
        self,
        request: pb.GenerateRequest,
        *,
        revision: str,
        prompt: Prompt,
        tokenizer: Tokenizer,
        split: ReasoningSplit | None,
    ) -> None:
        self._request = request
        self._revision = revision
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._split = split
        self._num_output = len(request.resume_token_ids)

    def replay(self, token_ids: Sequence[int], sampling: SamplingParams) -> None:
        """Bring the split to where an earlier attempt left it after these output tokens."""
        if self._split is None or not token_ids:
            return
        text = OutputText(
            self._tokenizer.new_stream(),
            sampling.stop,
            include_stop=sampling.include_stop_in_output,
        )
        for token_id in token_ids:
            self._split.push(text.push(token_id), token_id)

    def of(self, event: TokenEvent) -> Iterator[pb.GenerateEvent]:
        """The messages of one engine event, in order."""
        if event.num_prompt_tokens is not None:
            yield self._message(started=self._started(event))
        answer, reasoning = self._divide(event)
        reason = event.finish_reason or ""
        if event.token_id is not None:
            token = pb.Token(
                token_id=event.token_id, text=answer, reasoning=reasoning, finish_reason=reason
            )
            if event.logprob is not None:
                token.logprob.CopyFrom(logprob_to_proto(event.logprob))
                token.top_logprobs.extend(map(logprob_to_proto, event.top_logprobs))
            self._num_output = event.index + 1
            yield self._message(sequence=event.index, token=token)
            answer = reasoning = ""
        if event.finish_reason is not None:
            yield self.end(event.finish_reason, answer, reasoning)

    def end(self, reason: FinishReason, answer: str = "", reasoning: str = "") -> pb.GenerateEvent:
        finished = pb.Finished(
            reason=reason,
            text=answer,
            reasoning=reasoning,
            num_output_tokens=self._num_output,
        )
        return self._message(sequence=self._num_output, finished=finished)

    def _divide(self, event: TokenEvent) -> tuple[str, str]:
        if self._split is None:
            return event.text, ""
        answer, reasoning = self._split.push(event.text, event.token_id)
        # A resumed answer that was complete already ends without a token: its text is all out.
        was_complete = event.token_id is None and event.finish_reason in (
            FinishReason.STOP,
            FinishReason.LENGTH,
        )
        if event.finish_reason is not None and not was_complete:
            more_answer, more_reasoning = self._split.finish()
            answer, reasoning = answer + more_answer, reasoning + more_reasoning
        return answer, reasoning

    def _started(self, event: TokenEvent) -> pb.Started:
        prompt_text = ""
        if not self._request.HasField("chat"):  # for `echo`
            ids = self._prompt.token_ids
            prompt_text = self._prompt.text or self._tokenizer.decode(ids, False)
        return pb.Started(
            num_prompt_tokens=event.num_prompt_tokens,
            num_cached_tokens=event.num_cached_tokens,
            prompt_text=prompt_text,
            prompt_logprobs=map(_logprobs_to_proto, event.prompt_logprobs or ()),
            revision=self._revision,
        )

    def _message(
        self,
        *,
        sequence: int = 0,
        started: pb.Started | None = None,
        token: pb.Token | None = None,
        finished: pb.Finished | None = None,
    ) -> pb.GenerateEvent:
        request = self._request
        return pb.GenerateEvent(
            request_id=request.request_id,
            stream=request.stream,
            attempt=request.attempt,
            sequence=sequence,
            started=started,
            token=token,
            finished=finished,
        )


def _logprobs_to_proto(logprobs: tuple[TokenLogprob, ...] | None) -> pb.TokenLogprobs:
    return pb.TokenLogprobs(top=map(logprob_to_proto, logprobs or ()))
