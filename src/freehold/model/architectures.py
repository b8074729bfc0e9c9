"""Which architecture reads a config, which tensors it expects, and how a model is put together.

Knows no directories (`loading.py`) and no memory limits (`memory.py`). Read `model.py` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from freehold.model import deepseek_v3, llama, mtp
from freehold.model.config import ModelConfig, with_tensors
from freehold.model.formats import Role, default_format
from freehold.model.layers import Linear, WeightLoader
from freehold.model.model import DecoderLayer, Model
from freehold.model.pack_cache import Packs
from freehold.model.weights import Shape, TensorFiles, WeightSource
from freehold.ops import Ops
from freehold.types import CacheFormat, WeightFormat


class Architecture(Protocol):
    """What `llama` and `deepseek_v3` give."""

    def layer_tensor_shapes(self, config: ModelConfig, layer: int, /) -> dict[str, Shape]: ...

    def load_layer(
        self, config: ModelConfig, loader: WeightLoader, layer: int, /
    ) -> DecoderLayer: ...


def build_model(
    config_json: Mapping[str, Any],
    files: TensorFiles,
    *,
    ops: Ops,
    quantize: WeightFormat | None = None,
    packs: Packs | None = None,
    cache_format: CacheFormat = CacheFormat.BF16,
) -> Model:
    """Of a parsed config.json and the tensors: all checked first, then packed layer by layer, or
    taken from `packs`.

    Raises UnsupportedArchitecture, or CheckpointError naming the field or tensor.
    """
    config = with_tensors(ModelConfig.from_dict(config_json), set(files.names()))
    architecture = _architecture(config)
    source = WeightSource(files, tensor_shapes(config), config)
    loader = WeightLoader(source, ops, quantize or default_format(ops), packs)
    return Model(
        config,
        ops,
        embedding=loader.embedding("model.embed_tokens"),
        layers=[
            architecture.load_layer(config, loader, layer)
            for layer in range(config.num_hidden_layers)
        ],
        norm=loader.rms_norm("model.norm", config.rms_norm_eps),
        head=_load_head(config, loader),
        mtp=mtp.load(config, loader) if config.has_mtp else None,
        cache_format=cache_format,
    )


def tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor a checkpoint of this config holds, and its shape."""
    hidden, table = config.hidden_size, (config.vocab_size, config.hidden_size)
    shapes: dict[str, Shape] = {
        "model.embed_tokens.weight": table,
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = table
    architecture = _architecture(config)
    for layer in range(config.num_hidden_layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (hidden,)
        shapes |= architecture.layer_tensor_shapes(config, layer)
    return shapes | (mtp.tensor_shapes(config) if config.has_mtp else {})


def _architecture(config: ModelConfig) -> Architecture:
    return deepseek_v3 if config.mla else llama


def _load_head(config: ModelConfig, loader: WeightLoader) -> Linear:
    tied = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    return loader.linear(Role.HEAD, tied)
