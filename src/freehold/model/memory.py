"""How much memory a model takes when it is loaded, how much is free, and the refusal before
loading where the one is more than the other.

Reads headers only, never weights. Knows what a tensor is by its name and role, not how kernels
pack it. Read `formats.py` for the roles, `inspect.py` for the report to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from math import prod
from pathlib import Path

import psutil

from freehold.errors import NotEnoughMemory
from freehold.model.architectures import tensor_shapes
from freehold.model.checkpoint import Checkpoint
from freehold.model.config import ModelConfig, kv_bytes_per_token, with_tensors
from freehold.model.formats import Role, weight_format
from freehold.model.weights import Shape
from freehold.ops import DEFAULT_GROUP_SIZE
from freehold.ops.quantize import int4_group_size
from freehold.types import CacheFormat, WeightFormat

WORKING_BYTES = 256 << 20  # activations, logits, tokenizer, interpreter and libraries
MIN_CONTEXT = 512  # tokens of cache without which loading is pointless


class Kind(StrEnum):
    """What a tensor is for, as reports name it."""

    ATTENTION = "attention"
    DENSE_MLP = "dense_mlp"  # shared experts too: every token runs them
    EXPERTS = "experts"
    ROUTER = "router"
    EMBEDDING = "embedding"
    NORM = "norm"
    HEAD = "head"


_ROLES = {
    Kind.ATTENTION: Role.ATTENTION,
    Kind.DENSE_MLP: Role.MLP,
    Kind.EXPERTS: Role.EXPERT,
    Kind.HEAD: Role.HEAD,
}


def kind_of(name: str) -> Kind:
    """Of a tensor's name as the architectures here spell it."""
    if name.startswith("model.embed_tokens."):
        return Kind.EMBEDDING
    if name.startswith("lm_head."):
        return Kind.HEAD
    if re.search(r"norm\.(weight|bias)$", name):
        return Kind.NORM
    if ".mlp.experts." in name:
        return Kind.EXPERTS
    if ".mlp.gate." in name:
        return Kind.ROUTER
    return Kind.DENSE_MLP if ".mlp." in name else Kind.ATTENTION


def loaded_bytes_by_kind(config: ModelConfig, quantize: WeightFormat) -> dict[Kind, int]:
    """Bytes of all weights in memory. Embeddings stay as stored: counted at 16 bits."""
    totals = dict.fromkeys(Kind, 0)
    shapes = tensor_shapes(config)
    for name, shape in shapes.items():
        totals[kind_of(name)] += _loaded_bytes(name, shape, quantize)
    if config.tie_word_embeddings:  # the head is packed from the same table, beside it
        table = shapes["model.embed_tokens.weight"]
        totals[Kind.HEAD] += _loaded_bytes("lm_head.weight", table, quantize)
    return totals


def _loaded_bytes(name: str, shape: Shape, quantize: WeightFormat) -> int:
    kind = kind_of(name)
    if kind is Kind.EMBEDDING:
        return 2 * prod(shape)
    if len(shape) < 2 or kind not in _ROLES:  # norms, biases, routers
        return 4 * prod(shape)
    if name.endswith(".kv_b_proj.weight"):  # per head, 16 bits at any rounding
        return prod(shape) * (4 if quantize is WeightFormat.FLOAT32 else 2)
    return _linear_bytes(shape, weight_format(_ROLES[kind], quantize))


def _linear_bytes(shape: Shape, form: WeightFormat) -> int:
    num_rows, in_features = shape
    group_size = int4_group_size(in_features, DEFAULT_GROUP_SIZE)
    if form is WeightFormat.INT4 and group_size is not None:
        return num_rows * (in_features // 2 + 2 * in_features // group_size)
    if form in (WeightFormat.INT4, WeightFormat.INT8):
        return num_rows * (in_features + 4)
    return num_rows * in_features * (4 if form is WeightFormat.FLOAT32 else 2)


def needed_bytes(
    config: ModelConfig,
    quantize: WeightFormat,
    context: int,
    cache_format: CacheFormat = CacheFormat.BF16,
) -> int:
    """Weights, the cache of `context` tokens, and working memory."""
    weights = sum(loaded_bytes_by_kind(config, quantize).values())
    return weights + context * kv_bytes_per_token(config, cache_format) + WORKING_BYTES


def check_fits(
    path: str | Path,
    quantize: WeightFormat | None = None,
    *,
    context: int | None = None,
    cache_format: CacheFormat = CacheFormat.BF16,
    free_bytes: int | None = None,
) -> None:
    """Raise NotEnoughMemory with both figures if the model and a cache of `context` tokens
    (None: a short one) would not fit into `free_bytes` (None: what this process may still take).

    Reads config.json and headers only; raises CheckpointError for what is wrong with them.
    """
    with Checkpoint.open(path) as checkpoint:
        config = with_tensors(ModelConfig.from_dict(checkpoint.config), set(checkpoint.names()))
    quantize = quantize or WeightFormat.BF16
    context = min(context or MIN_CONTEXT, config.max_position_embeddings)
    needed = needed_bytes(config, quantize, context, cache_format)
    free = available_bytes() if free_bytes is None else free_bytes
    if needed > free:
        smaller = [
            form.value
            for form in _smaller_formats(quantize)
            if needed_bytes(config, form, context, cache_format) <= free
        ]
        advice = f"; it would fit as {' or '.join(smaller)}" if smaller else ""
        raise NotEnoughMemory(
            f"{Path(path).name} as {quantize.value} with {context:,} tokens of cache needs "
            f"{readable_bytes(needed)} of memory, but {readable_bytes(free)} is free{advice}."
        )


def _smaller_formats(quantize: WeightFormat) -> tuple[WeightFormat, ...]:
    order = (WeightFormat.FLOAT32, WeightFormat.BF16, WeightFormat.INT8, WeightFormat.INT4)
    return order[order.index(quantize) + 1 :]


def readable_bytes(num_bytes: int) -> str:
    """'3.42 GiB': binary units, three digits."""
    value, unit = float(num_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def available_bytes(root: Path = Path("/")) -> int:
    """What this process may still take: the machine's MemAvailable, and under each control
    group (v1 and v2, up to the top) its limit less what cannot be reclaimed.

    `root` is where /proc and /sys stand.
    """
    meminfo = _table(root / "proc/meminfo")
    if "MemAvailable" not in meminfo:  # not Linux
        return int(psutil.virtual_memory().available)
    free = [meminfo["MemAvailable"] * 1024]
    for directory in _memory_groups(root):
        free += _group_free(directory, "memory.max", "memory.current", "")
        free += _group_free(directory, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    return max(0, min(free))


def _memory_groups(root: Path) -> list[Path]:
    """The directories of this process's memory groups and of all groups above them.

    In a container the listed path is often the host's, and only the top exists.
    """
    directories = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            below = top / path.strip("/")
            directories += [each for each in (below, *below.parents) if each.is_relative_to(top)]
    return directories


def _group_free(directory: Path, limit: str, usage: str, prefix: str) -> list[int]:
    limits, usages = _lines(directory / limit), _lines(directory / usage)
    if not limits or not usages or not limits[0].isdecimal():  # "max"
        return []
    stat = _table(directory / "memory.stat")
    reclaimable = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    return [int(limits[0]) - max(0, int(usages[0]) - reclaimable)]


def _table(path: Path) -> Mapping[str, int]:
    """Lines of 'name[:] number [unit]'."""
    fields = (line.replace(":", " ").split() for line in _lines(path))
    return {each[0]: int(each[1]) for each in fields if len(each) > 1 and each[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not this kernel's, or not mounted here
        return []
