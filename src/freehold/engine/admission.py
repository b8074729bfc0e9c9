"""What a request must satisfy before the engine holds anything for it."""

from __future__ import annotations

from freehold.engine.request import Request
from freehold.errors import ContextLengthExceeded, InvalidRequest


def check_request(request: Request, vocab_size: int) -> None:
    """Raise InvalidRequest if a field is out of bounds or a token id is not of this model."""
    request.sampling.check()
    if not request.prompt_token_ids:
        raise InvalidRequest("The prompt is empty; send at least one token.", param="prompt")
    _check_ids(request.prompt_token_ids, vocab_size, "prompt")
    _check_ids(request.output_token_ids, vocab_size, "prompt")
    _check_ids(list(request.sampling.logit_bias), vocab_size, "logit_bias")


def max_output_tokens(request: Request, max_model_len: int) -> int:
    """How many tokens it may put out: max_tokens, or what the context leaves.

    Raises ContextLengthExceeded, with both lengths, if that does not fit beside the prompt.
    """
    num_prompt, max_tokens = len(request.prompt_token_ids), request.sampling.max_tokens
    if num_prompt + 1 > max_model_len:
        raise ContextLengthExceeded(
            f"The prompt has {num_prompt} tokens, but this model's context is {max_model_len}, "
            "answer included; shorten the messages.",
            param="messages",
        )
    if max_tokens is None:
        return max_model_len - num_prompt
    if num_prompt + max_tokens > max_model_len:
        raise ContextLengthExceeded(
            f"The prompt has {num_prompt} tokens and max_tokens asks for {max_tokens} more, but "
            f"this model's context is {max_model_len}; shorten the messages or lower max_tokens.",
            param="max_tokens",
        )
    return max_tokens


def _check_ids(token_ids: list[int], vocab_size: int, param: str) -> None:
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= vocab_size):
        raise InvalidRequest(
            f"{param} holds token ids outside 0 … {vocab_size - 1}; use this model's tokenizer.",
            param=param,
        )
