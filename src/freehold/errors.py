"""Every error a user can cause, as one tree.

Each class carries what a border needs to answer it: the HTTP status, OpenAI's error `type` and
`code`. The message says in one sentence what was wrong and what to do. Knows no transport; the
gRPC form is in `serving/convert.py`, the HTTP form in `serving/gateway/errors.py`.
"""

from __future__ import annotations


class FreeholdError(Exception):
    """Base of the tree. `param` names the offending field of a request, if there is one."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class ConfigError(FreeholdError):
    """A setting, a command-line value or freehold.toml is wrong."""

    code = "invalid_config"


# What a client asked for


class InvalidRequest(FreeholdError):
    """The request itself is malformed or out of bounds."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The prompt (plus max_tokens) does not fit; the message gives both lengths."""

    code = "context_length_exceeded"


class InvalidSchema(InvalidRequest):
    """A JSON schema cannot be compiled into a constraint."""

    code = "invalid_json_schema"


class TemplateError(InvalidRequest):
    """The chat template refused these messages, looped, or reached for an attribute."""

    code = "chat_template_error"


class AuthenticationFailed(FreeholdError):
    """No key, or a key that is not (or no longer) known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotFound(FreeholdError):
    """No such path or object."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No worker serves a model of that name."""

    code = "model_not_found"


class RequestTooLarge(InvalidRequest):
    """The body is larger than the gateway reads."""

    status = 413
    code = "request_too_large"


# What the service cannot do now


class RequestCancelled(FreeholdError):
    """The client went away or asked to stop."""

    status = 499
    code = "cancelled"


class Overloaded(FreeholdError):
    """The admission queue is full; `retry_after_seconds` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class Unavailable(FreeholdError):
    """A process this request needs is not there, or died and could not be replaced."""

    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class DeadlineExceeded(FreeholdError):
    """The request's deadline passed before it was finished."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


# What is wrong with a model on disk


class CheckpointError(FreeholdError):
    """A checkpoint directory cannot be read: missing, truncated, malformed or inconsistent."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_checkpoint"


class UnsupportedArchitecture(CheckpointError):
    """config.json names an architecture we do not have; the message lists those we do."""

    code = "unsupported_architecture"


class NotEnoughMemory(FreeholdError):
    """Refused before loading: the message gives bytes needed and bytes free."""

    status = 507
    code = "not_enough_memory"
