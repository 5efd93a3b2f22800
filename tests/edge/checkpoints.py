"""Tiny random checkpoints in Hugging Face layout, the same numbers every time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END = "<|im_end|>"
VOCABULARY = 384
CONTEXT = 8192
LLAMA = "LlamaForCausalLM"
QWEN2 = "Qwen2ForCausalLM"
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Weights = dict[str, NDArray[Any]]


def write_checkpoint(folder: Path, architecture: str = LLAMA, *, tied: bool = True, **changes: Any) -> Path:
    """A checkpoint of two layers; `changes` go into its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [architecture],
        "model_type": "llama" if architecture == LLAMA else "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": 258,
        "pad_token_id": 256,
        "torch_dtype": "float32",
    } | changes
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder


def random_weights(config: dict[str, Any]) -> Weights:
    """Weights large enough that answers do not run in circles at once."""
    random = np.random.default_rng(7)
    width, heads, kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, hidden = config["head_dim"], config["intermediate_size"]

    def normal(*shape: int, scale: float) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    weights: Weights = {"model.embed_tokens.weight": normal(config["vocab_size"], width, scale=1.0)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", heads * size), ("k", kv * size), ("v", kv * size)):
            weights[f"{prefix}.self_attn.{name}_proj.weight"] = normal(rows, width, scale=0.15)
            if config["architectures"] == [QWEN2]:
                weights[f"{prefix}.self_attn.{name}_proj.bias"] = normal(rows, scale=0.3)
        weights[f"{prefix}.self_attn.o_proj.weight"] = normal(width, heads * size, scale=0.15)
        for name in ("gate", "up"):
            weights[f"{prefix}.mlp.{name}_proj.weight"] = normal(hidden, width, scale=0.15)
        weights[f"{prefix}.mlp.down_proj.weight"] = normal(width, hidden, scale=0.1)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = 1 + normal(width, scale=0.1)
    weights["model.norm.weight"] = 1 + normal(width, scale=0.1)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = normal(config["vocab_size"], width, scale=0.5)
    return weights


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE: every byte, three special tokens, and some merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n"), ("e", "r"), ("Ġ", "the"), ("Ã", "¤"), ("ð", "Ł")]
    vocabulary = {piece: i for i, piece in enumerate(alphabet)}
    specials = ["<|pad|>", "<|im_start|>", END]
    vocabulary |= {piece: 256 + i for i, piece in enumerate(specials)}
    vocabulary |= {left + right: 259 + i for i, (left, right) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
