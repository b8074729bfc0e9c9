"""Writes the trained state as an ordinary Hugging Face directory: one BF16 safetensors file.

Router weights and correction biases stay float32. Knows the two sets of names, nothing of data.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.nano.model import Nano, NanoConfig
from recipes.nano.tokenizer import BOS, EOS, PAD, SPECIALS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def config_json(config: NanoConfig) -> dict[str, object]:
    """The config.json of `DeepseekV3ForCausalLM`."""
    fields = asdict(config)
    theta = fields["rope_theta"]
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **fields,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rope_interleave": True,
        "q_lora_rank": None,
        "num_key_value_heads": config.num_attention_heads,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "norm_topk_prob": True,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": SPECIALS.index(BOS),
        "eos_token_id": SPECIALS.index(EOS),
        "pad_token_id": SPECIALS.index(PAD),
        "torch_dtype": "bfloat16",
    }


def hugging_face_tensors(model: Nano) -> dict[str, Tensor]:
    """Every tensor under its Hugging Face name; experts one by one."""
    out = {"model.embed_tokens.weight": model.embed, "model.norm.weight": model.norm.weight}
    for name, tensor in model.layers.state_dict().items():
        layer, _, rest = name.partition(".")
        prefix = f"model.layers.{layer}."
        if rest == "mlp.router":
            out[prefix + "mlp.gate.weight"] = tensor
        elif rest == "mlp.bias":
            out[prefix + "mlp.gate.e_score_correction_bias"] = tensor
        elif rest == "mlp.gate_up":
            for i, expert in enumerate(tensor):
                gate, up = expert.chunk(2, 0)
                out[f"{prefix}mlp.experts.{i}.gate_proj.weight"] = gate
                out[f"{prefix}mlp.experts.{i}.up_proj.weight"] = up
        elif rest == "mlp.down":
            for i, expert in enumerate(tensor):
                out[f"{prefix}mlp.experts.{i}.down_proj.weight"] = expert
        else:
            out[prefix + rest] = tensor
    return {
        name: tensor.detach().to(torch.float32 if "mlp.gate." in name else torch.bfloat16).clone()
        for name, tensor in out.items()
    }


def write_checkpoint(model: Nano, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_json(model.config)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generation = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
        "do_sample": False,
        "max_new_tokens": 256,
    }
    (folder / "generation_config.json").write_text(
        json.dumps(generation, indent=2) + "\n", encoding="utf-8"
    )
    part = folder / "model.safetensors.part"
    save_file(hugging_face_tensors(model), part, metadata={"format": "pt"})
    part.chmod(0o644)  # safetensors writes files that only their owner may read
    part.replace(folder / "model.safetensors")


def load_state(path: Path) -> Nano:
    """The model of a saved training state."""
    model = Nano(NanoConfig())
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model


def export(scratch: Path, out: Path) -> None:
    """Turn `scratch`/state.pt and its tokenizer into the directory `out`."""
    write_checkpoint(load_state(scratch / "state.pt"), out)
    for name in TOKENIZER_FILES:
        shutil.copyfile(scratch / name, out / name)
