"""What a checkpoint is, from its headers alone: parameters, bytes, cache, and whether it fits.

Touches no page of the weights. Knows no terminal: `to_dict()` is what the command line draws.
Read `memory.py` for the arithmetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from freehold.model.architectures import tensor_shapes
from freehold.model.checkpoint import Checkpoint
from freehold.model.config import ModelConfig, kv_bytes_per_token, with_tensors
from freehold.model.memory import (
    WORKING_BYTES,
    Kind,
    available_bytes,
    kind_of,
    loaded_bytes_by_kind,
    needed_bytes,
)
from freehold.model.weights import SCALE_SUFFIX, WeightSource
from freehold.types import WeightFormat

DEFAULT_CONTEXT = 8192
LOADABLE = (WeightFormat.BF16, WeightFormat.INT8, WeightFormat.INT4)


@dataclass(frozen=True, slots=True)
class ModelReport:
    name: str  # the directory's
    architecture: str
    num_parameters: int  # of what is read: without multi-token-prediction layers
    num_active_parameters: int  # those one token runs through
    num_layers: int
    vocab_size: int
    max_context: int  # tokens
    attention: str  # "grouped" or "latent"
    kv_bytes_per_token: int
    stored_bytes: int
    stored_bytes_by_kind: dict[str, int]  # "unread" for what the model does not use
    stored_bytes_by_format: dict[str, int]
    loaded_bytes_by_format: dict[str, int]  # all weights, under each `--quantize`
    quantize: str  # what the following is for
    loaded_bytes_by_kind: dict[str, int]
    read_bytes_per_token: int  # weights that one stream's step reads: no idle experts
    context: int  # tokens of cache
    needed_bytes: int  # weights, cache and working memory
    available_bytes: int
    max_context_that_fits: int  # tokens of cache, together; at most max_context

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"fits": self.fits}


def inspect(
    path: str | Path, quantize: WeightFormat | None = None, context: int | None = None
) -> ModelReport:
    """`quantize` None: 16 bits. `context` None: the model's own, at most 8,192 tokens.

    Raises UnsupportedArchitecture, or CheckpointError naming the file, field or tensor: what
    cannot be loaded cannot be inspected either.
    """
    quantize = quantize or WeightFormat.BF16
    with Checkpoint.open(path) as checkpoint:
        config = with_tensors(ModelConfig.from_dict(checkpoint.config), set(checkpoint.names()))
        shapes = tensor_shapes(config)
        WeightSource(checkpoint, shapes, config)  # config and weights agree
        by_kind, by_format = _stored_bytes(checkpoint, set(shapes))
    num_parameters = sum(prod(shape) for shape in shapes.values())
    max_context = config.max_position_embeddings
    context = min(context or DEFAULT_CONTEXT, max_context)
    loaded = loaded_bytes_by_kind(config, quantize)
    available, per_token = available_bytes(), kv_bytes_per_token(config)
    left = available - sum(loaded.values()) - WORKING_BYTES
    return ModelReport(
        name=Path(path).resolve().name,
        architecture=config.architecture,
        num_parameters=num_parameters,
        num_active_parameters=num_parameters - idle_parameters(config, shapes),
        num_layers=config.num_hidden_layers,
        vocab_size=config.vocab_size,
        max_context=max_context,
        attention="latent" if config.mla else "grouped",
        kv_bytes_per_token=per_token,
        stored_bytes=by_format.total(),
        stored_bytes_by_kind=dict(by_kind),
        stored_bytes_by_format=dict(by_format),
        loaded_bytes_by_format={
            form.value: sum(loaded_bytes_by_kind(config, form).values()) for form in LOADABLE
        },
        quantize=quantize.value,
        loaded_bytes_by_kind={kind.value: size for kind, size in loaded.items() if size},
        read_bytes_per_token=_read_bytes_per_token(config, loaded),
        context=context,
        needed_bytes=needed_bytes(config, quantize, context),
        available_bytes=available,
        max_context_that_fits=max(0, min(max_context, left // per_token)),
    )


def _stored_bytes(checkpoint: Checkpoint, read: set[str]) -> tuple[Counter[str], Counter[str]]:
    by_kind: Counter[str] = Counter()
    by_format: Counter[str] = Counter()
    for name in checkpoint.names():
        info = checkpoint.info(name)
        weight = name.removesuffix(SCALE_SUFFIX)  # block scales belong to their weight
        by_kind[kind_of(weight).value if weight in read else "unread"] += info.num_bytes
        by_format[info.dtype] += info.num_bytes
    return by_kind, by_format


def _read_bytes_per_token(config: ModelConfig, loaded: Mapping[Kind, int]) -> int:
    """Of the embedding one row is read: next to nothing."""
    num_bytes = sum(loaded.values()) - loaded.get(Kind.EMBEDDING, 0)
    if config.moe is not None:
        routing = config.moe.routing
        num_idle = routing.num_experts - routing.num_experts_per_token
        num_bytes -= loaded.get(Kind.EXPERTS, 0) // routing.num_experts * num_idle
    return num_bytes


def idle_parameters(config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> int:
    """Parameters of the experts that one token is not sent to."""
    if config.moe is None:
        return 0
    routing = config.moe.routing
    experts = sum(prod(shape) for name, shape in shapes.items() if kind_of(name) is Kind.EXPERTS)
    return experts // routing.num_experts * (routing.num_experts - routing.num_experts_per_token)
