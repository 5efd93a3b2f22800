"""A chat model of 60,000 random weights: it speaks gibberish, always the same."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edge.engine.artifact import ArtifactKind, write_manifest
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint

HIDDEN, LAYERS, HEADS, KV_HEADS, CONTEXT = 32, 2, 2, 1, 2048
TOKENS = ["<s>", "</s>", *(chr(code) for code in range(ord("!"), ord("~") + 1)), "Ġ"]


def make_chat_artifact(folder: Path, precision: Precision = Precision.FLOAT32) -> Path:
    """Write the checkpoint and its export below `folder`; returns the artifact's path."""
    source, artifact = folder / "checkpoint", folder / "artifact"
    source.mkdir(parents=True)
    artifact.mkdir()
    _write_checkpoint(source)
    export_checkpoint(source, artifact, precision)
    write_manifest(artifact, kind=ArtifactKind.CHAT, name="gibberish", version="1")
    return artifact


def _write_checkpoint(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "vocab_size": len(TOKENS),
                "hidden_size": HIDDEN,
                "intermediate_size": 2 * HIDDEN,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": KV_HEADS,
                "max_position_embeddings": CONTEXT,
                "tie_word_embeddings": False,
                "bos_token_id": 0,
                "eos_token_id": 1,
            }
        )
    )
    save_file(_weights(), folder / "model.safetensors")
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, []))
    tokenizer.add_special_tokens(TOKENS[:2])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[-1].content }}"}))


def _weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(TOKENS), HIDDEN),
        "lm_head.weight": (len(TOKENS), HIDDEN),
    }
    kv = HIDDEN * KV_HEADS // HEADS
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (kv, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (kv, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.mlp.gate_proj.weight": (2 * HIDDEN, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (2 * HIDDEN, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, 2 * HIDDEN),
        }
    weights = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = [f"model.layers.{i}.{name}_layernorm" for i in range(LAYERS) for name in ("input", "post_attention")]
    return weights | {f"{name}.weight": np.ones(HIDDEN, np.float32) for name in (*norms, "model.norm")}
