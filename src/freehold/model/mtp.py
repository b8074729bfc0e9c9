"""DeepSeek-V3's first multi-token-prediction layer: its tensors and how it is put together.

It follows the decoder's layers in the checkpoint. The copies of embedding and head that are
stored with it are the main model's (V3 report §2.2) and not read. `model.py` has the arithmetic.
"""

from __future__ import annotations

from freehold.model import deepseek_v3
from freehold.model.config import ModelConfig
from freehold.model.formats import Role
from freehold.model.layers import WeightLoader
from freehold.model.model import MtpLayer
from freehold.model.weights import Shape


def tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Names and shapes of the tensors that are read."""
    layer, hidden = config.num_hidden_layers, config.hidden_size
    norms = ("enorm", "hnorm", "shared_head.norm", "input_layernorm", "post_attention_layernorm")
    shapes: dict[str, Shape] = {f"model.layers.{layer}.{norm}.weight": (hidden,) for norm in norms}
    shapes[f"model.layers.{layer}.eh_proj.weight"] = (hidden, 2 * hidden)
    return shapes | deepseek_v3.layer_tensor_shapes(config, layer)


def load(config: ModelConfig, loader: WeightLoader) -> MtpLayer:
    layer, eps = config.num_hidden_layers, config.rms_norm_eps
    prefix = f"model.layers.{layer}"
    return MtpLayer(
        ops=loader.ops,
        embedding_norm=loader.rms_norm(f"{prefix}.enorm", eps),
        hidden_norm=loader.rms_norm(f"{prefix}.hnorm", eps),
        projection=loader.linear(Role.ATTENTION, f"{prefix}.eh_proj"),
        layer=deepseek_v3.load_layer(config, loader, layer),
        norm=loader.rms_norm(f"{prefix}.shared_head.norm", eps),
    )
