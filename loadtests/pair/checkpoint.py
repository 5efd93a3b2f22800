"""Checkpoints in Hugging Face's layout: what any Llama loader can read."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer

from loadtests.pair.conversation import Tier
from loadtests.pair.model import Decoder, Shape
from loadtests.pair.tokenizer import END, PAD, save_tokenizer

DTYPES = {Tier.EDGE: torch.float32, Tier.CLOUD: torch.float16}


def save_checkpoint(model: Decoder, tokenizer: Tokenizer, tier: Tier, folder: Path) -> None:
    """Writes config, weights and tokenizer; the tied output matrix is not stored twice."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = DTYPES[tier]
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    _write(folder / "config.json", describe(model.shape, dtype, end, pad))
    _write(folder / "generation_config.json", {"do_sample": False, "eos_token_id": end, "pad_token_id": pad})
    weights = {name: value.detach().to(dtype).contiguous() for name, value in model.named_parameters()}
    (folder / "model.safetensors.new").write_bytes(save(weights, metadata={"format": "pt"}))
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    save_tokenizer(tokenizer, folder, model.shape.context)


def describe(shape: Shape, dtype: torch.dtype, end: int | None, pad: int | None) -> dict[str, object]:
    """`config.json` for transformers' LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def load_checkpoint(folder: Path) -> tuple[Decoder, Tokenizer]:
    """A checkpoint as a float32 model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        config["vocab_size"],
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
        config["intermediate_size"],
        config["max_position_embeddings"],
        config["rope_theta"],
        config["rms_norm_eps"],
    )
    model = Decoder(shape)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
