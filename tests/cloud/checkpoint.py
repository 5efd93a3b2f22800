"""Models of random weights, made in a moment: a chat model that speaks gibberish, and an encoder of its characters."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cloud.wire import EMBEDDING_WIDTH
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.models import minilm
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint

HIDDEN, LAYERS, HEADS, KV_HEADS, CONTEXT = 32, 2, 2, 1, 16_384
Weight = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
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


def make_embedding_artifact(folder: Path) -> Path:
    """Write the encoder and its export below `folder`; returns the artifact's path."""
    source, artifact = folder / "encoder", folder / "embedding"
    source.mkdir(parents=True)
    artifact.mkdir()
    _write_encoder(source)
    minilm.export(source, artifact, precision=Precision.FLOAT32)
    write_manifest(artifact, kind=ArtifactKind.EMBEDDING, name="characters", version="1")
    return artifact


def _write_encoder(folder: Path) -> None:
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": EMBEDDING_WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    save_file(_encoder_weights(), folder / "model.safetensors")
    _tokenizer().save(str(folder / "tokenizer.json"))


def _encoder_weights() -> dict[str, Weight]:
    random = np.random.default_rng(1)
    width, layer = EMBEDDING_WIDTH, "encoder.layer.0"
    tables = {"word": len(TOKENS), "position": 64, "token_type": 2}
    linears = {
        **{f"{layer}.attention.self.{part}": (width, width) for part in ("query", "key", "value")},
        f"{layer}.attention.output.dense": (width, width),
        f"{layer}.intermediate.dense": (64, width),
        f"{layer}.output.dense": (width, 64),
    }
    norms = ("embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm")
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{n}_embeddings.weight": (r, width) for n, r in tables.items()}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    weights = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        weights |= {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}
    return weights


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, []))
    tokenizer.add_special_tokens(TOKENS[:2])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


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
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[-1].content }}"}))


def _weights() -> dict[str, Weight]:
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
    weights["lm_head.weight"][:2] = 0  # so the likeliest token is never a special one: greedy answers do not end
    return weights | {f"{name}.weight": np.ones(HIDDEN, np.float32) for name in (*norms, "model.norm")}
