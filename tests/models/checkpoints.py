"""Small random checkpoints in Hugging Face layout, as transformers would save them."""

import json
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Architecture(StrEnum):
    LLAMA = "LlamaForCausalLM"
    QWEN2 = "Qwen2ForCausalLM"


def make_checkpoint(folder: Path, architecture: Architecture) -> None:
    """Qwen2 differs in its attention biases and in its tied output matrix."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": [architecture],
        "model_type": "llama" if architecture is Architecture.LLAMA else "qwen2",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 256,
        "tie_word_embeddings": architecture is Architecture.QWEN2,
        "eos_token_id": tokenizer.token_to_id(END),
    }
    (folder / "config.json").write_text(json.dumps(config))
    chat = {"chat_template": TEMPLATE, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(chat))
    save_file(_weights(architecture, tokenizer.get_vocab_size()), folder / "model.safetensors", {"format": "pt"})


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in (START, END)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["user assistant hello world the answer is"] * 3, trainer)
    return tokenizer


def _weights(architecture: Architecture, vocabulary: int) -> dict[str, NDArray[np.float32]]:
    chance = np.random.default_rng(3)
    width = HIDDEN // HEADS * KV_HEADS

    def matrix(*shape: int) -> NDArray[np.float32]:
        return chance.normal(0, 0.3, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocabulary, HIDDEN), "model.norm.weight": np.ones(HIDDEN, "f4")}
    if architecture is Architecture.LLAMA:
        weights["lm_head.weight"] = matrix(vocabulary, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, outputs in (("q", HIDDEN), ("k", width), ("v", width), ("o", HIDDEN)):
            weights[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(outputs, HIDDEN)
            if architecture is Architecture.QWEN2 and name != "o":
                weights[f"{prefix}.self_attn.{name}_proj.bias"] = matrix(outputs)
        weights[f"{prefix}.mlp.gate_proj.weight"] = matrix(INNER, HIDDEN)
        weights[f"{prefix}.mlp.up_proj.weight"] = matrix(INNER, HIDDEN)
        weights[f"{prefix}.mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{norm}.weight"] = np.ones(HIDDEN, "f4")
    return weights
