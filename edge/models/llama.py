"""
Llama- and Qwen2-shaped decoders as ONNX, built from their safetensors without PyTorch.

The graph has onnxruntime-genai's layout, so that onnxruntime-genai can run it as well: inputs `input_ids` and
`attention_mask` (int64 [batch, n]) and `past_key_values.*`, outputs `logits` [batch, 1, vocabulary] (of the last token
only) and `present.*`. Attention, rotation and cache are one node, `GroupQueryAttention`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.models.catalog import Exporter, Precision
from edge.models.checkpoint import Checkpoint, DecoderConfig, Floats
from edge.models.errors import ExportError
from edge.models.quantization import BLOCK, quantize_blocks, quantize_rows

OPSET: Final = 20
IR_VERSION: Final = 9
MICROSOFT: Final = "com.microsoft"
# MatMulNBits quantizes its input to 8 bits too, row by row: its fast kernels.
ACCURACY_LEVEL: Final = 4
# protobuf ends at 2 GiB; beyond, weights lie in a file of their own
_LARGEST_FILE_BYTES: Final = 1_800_000_000
_COPIED: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_BITS: Final = {Precision.INT8: 8, Precision.INT4: 4}


def export_checkpoint(source: Path, destination: Path, precision: Precision) -> None:
    """Write the model, `genai_config.json` and the tokenizer into the existing folder `destination`.

    The same bytes every time. float16 is for GPUs. int4 keeps the embedding and the output matrix at 8 bits.

    Raises:
        ExportError: `source` is not a checkpoint that can be exported, or not in this precision.
    """
    Exporter.LLAMA.require(precision)
    with Checkpoint(source) as checkpoint:
        model = _build(checkpoint, precision)
        if unread := next(checkpoint.unread(), None):
            raise ExportError(f"{source}: the tensor {unread} has no place in a {checkpoint.architecture} model.")
        genai = _genai_config(checkpoint)
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, destination / name)
        elif name == "tokenizer.json":
            raise ExportError(f"{source / name}: does not exist; save the checkpoint with a fast tokenizer.")
    _save(model, destination / "model.onnx")
    (destination / "genai_config.json").write_bytes(msgspec.json.format(msgspec.json.encode(genai), indent=2) + b"\n")


def _save(model: onnx.ModelProto, path: Path) -> None:
    if model.ByteSize() < _LARGEST_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    weights = path.with_name(path.name + ".data")
    weights.unlink(missing_ok=True)  # onnx would append
    onnx.save(model, path, save_as_external_data=True, location=weights.name)


def _genai_config(checkpoint: Checkpoint) -> Mapping[str, object]:
    """onnxruntime-genai's own file (https://onnxruntime.ai/docs/genai/reference/config.html)."""
    config = checkpoint.config
    ends = checkpoint.end_tokens()
    first = ends[0]
    return {
        "model": {
            "type": checkpoint.architecture,
            "vocab_size": config.vocab_size,
            "context_length": config.max_position_embeddings,
            "bos_token_id": first if config.bos_token_id is None else config.bos_token_id,
            "eos_token_id": ends,
            "pad_token_id": first if config.pad_token_id is None else config.pad_token_id,
            "decoder": {
                "filename": "model.onnx",
                "hidden_size": config.hidden_size,
                "head_size": config.head_size,
                "num_attention_heads": config.num_attention_heads,
                "num_hidden_layers": config.num_hidden_layers,
                "num_key_value_heads": config.kv_heads,
                "session_options": {"provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.max_position_embeddings,
            "past_present_share_buffer": True,
        },
    }


def _build(checkpoint: Checkpoint, precision: Precision) -> onnx.ModelProto:
    graph = _Graph(checkpoint, precision)
    graph.read_mask()
    hidden = graph.embed()
    normed = graph.normalize(hidden, "model.layers.0.input_layernorm")
    for layer in range(checkpoint.config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        attended = graph.attend(normed, layer, f"{prefix}.self_attn")
        normed, hidden = graph.add_and_normalize(attended, hidden, f"{prefix}.post_attention_layernorm")
        computed = graph.compute(normed, f"{prefix}.mlp")
        last = layer == checkpoint.config.num_hidden_layers - 1
        following = "model.norm" if last else f"model.layers.{layer + 1}.input_layernorm"
        normed, hidden = graph.add_and_normalize(computed, hidden, following)
    graph.head(normed)
    return graph.model()


class _Graph:
    """Collects the nodes of a decoder; every method adds some and returns the name of their output."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision) -> None:
        self._checkpoint = checkpoint
        self._config: DecoderConfig = checkpoint.config
        self._bits = _BITS.get(precision)
        self._dtype = np.float16 if precision is Precision.FLOAT16 else np.float32
        self._type = TensorProto.FLOAT16 if precision is Precision.FLOAT16 else TensorProto.FLOAT
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._lengths = self._total = ""

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), domain: str = "", **attributes: Any) -> str:
        names = outputs or (f"{kind}_{len(self._nodes)}",)
        node = helper.make_node(
            kind, list(inputs), list(names), f"node_{len(self._nodes)}", domain=domain, **attributes
        )
        self._nodes.append(node)
        return names[0]

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def floats(self, name: str, array: Floats) -> str:
        return self.constant(name, array.astype(self._dtype))

    def ints(self, *values: int) -> str:
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def read_mask(self) -> None:
        """Each row's last position [batch], and the longest row's length, as `GroupQueryAttention` wants them."""
        ones = self.op("ReduceSum", "attention_mask", self.ints(1), keepdims=0)
        self._lengths = self.op("Cast", self.op("Sub", ones, self.ints(1)), to=TensorProto.INT32)
        total = self.op(
            "Gather", self.op("Shape", "attention_mask"), self.constant("one", np.array(1, np.int64)), axis=0
        )
        self._total = self.op("Cast", total, to=TensorProto.INT32)

    def embed(self) -> str:
        """[batch, seq, hidden]."""
        name = "model.embed_tokens.weight"
        table = self._checkpoint.tensor(name)
        if self._bits is None:
            return self.op("Gather", self.floats(name, table), "input_ids")
        rows, scales = quantize_rows(table)
        row = self.op("Cast", self.op("Gather", self.constant(f"{name}.rows", rows), "input_ids"), to=self._type)
        return self.op("Mul", row, self.op("Gather", self.constant(f"{name}.row_scales", scales), "input_ids"))

    def normalize(self, hidden: str, prefix: str) -> str:
        scale = self.floats(f"{prefix}.weight", self._checkpoint.tensor(f"{prefix}.weight"))
        epsilon = self._config.rms_norm_eps
        return self.op("SimplifiedLayerNormalization", hidden, scale, axis=-1, epsilon=epsilon, stash_type=1)

    def add_and_normalize(self, addend: str, residual: str, prefix: str) -> tuple[str, str]:
        """The normed sum, and the sum."""
        scale = self.floats(f"{prefix}.weight", self._checkpoint.tensor(f"{prefix}.weight"))
        normed, total = f"{prefix}.normed", f"{prefix}.sum"
        self.op(
            "SkipSimplifiedLayerNormalization",
            addend,
            residual,
            scale,
            outputs=(normed, "", "", total),
            domain=MICROSOFT,
            epsilon=self._config.rms_norm_eps,
        )
        return normed, total

    def attend(self, hidden: str, layer: int, prefix: str) -> str:
        config = self._config
        cos, sin = self._rotation()
        context = self.op(
            "GroupQueryAttention",
            self.linear(hidden, *(f"{prefix}.{part}_proj" for part in "qkv")),
            "",
            "",
            f"past_key_values.{layer}.key",
            f"past_key_values.{layer}.value",
            self._lengths,
            self._total,
            cos,
            sin,
            outputs=(f"{prefix}.context", f"present.{layer}.key", f"present.{layer}.value"),
            domain=MICROSOFT,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
            scale=config.head_size**-0.5,
        )
        return self.linear(context, f"{prefix}.o_proj")

    def compute(self, hidden: str, prefix: str) -> str:
        """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""
        gate = self.linear(hidden, f"{prefix}.gate_proj")
        gated = self.op("Mul", gate, self.op("Sigmoid", gate))
        return self.linear(self.op("Mul", gated, self.linear(hidden, f"{prefix}.up_proj")), f"{prefix}.down_proj")

    def head(self, hidden: str) -> None:
        tied = "model.embed_tokens.weight" if self._config.tie_word_embeddings else "lm_head.weight"
        last = self.op("Gather", hidden, self.ints(-1), axis=1)
        # the last word decides: never fewer than 8 bits
        self._multiply(last, tied, self._checkpoint.tensor(tied), self._bits and 8, output="logits")

    def linear(self, hidden: str, *prefixes: str) -> str:
        """One product with the matrices of all `prefixes`, side by side; biases where the checkpoint has them."""
        weights = [self._checkpoint.tensor(f"{prefix}.weight") for prefix in prefixes]
        biases = [self._checkpoint.find(f"{prefix}.bias") for prefix in prefixes]
        name = "+".join(prefixes)
        product = self._multiply(hidden, f"{name}.weight", np.concatenate(weights), self._bits)
        if all(bias is None for bias in biases):
            return product
        zeros = [np.zeros(len(weight), np.float32) for weight in weights]
        filled = [zero if bias is None else bias for bias, zero in zip(biases, zeros, strict=True)]
        return self.op("Add", product, self.floats(f"{name}.bias", np.concatenate(filled)))

    def _multiply(self, hidden: str, name: str, weight: Floats, bits: int | None, output: str = "") -> str:
        """`hidden` @ `weight`.T; float weights keep the checkpoint's layout, so a tied table is stored once."""
        outputs = (output,) if output else ()
        if bits is None:
            return self.op(
                "FusedMatMul", hidden, self.floats(name, weight), outputs=outputs, domain=MICROSOFT, transB=1
            )
        blocks, scales = quantize_blocks(weight, bits)
        return self.op(
            "MatMulNBits",
            hidden,
            self.constant(f"{name}.blocks", blocks),
            self.constant(f"{name}.scales", scales),
            outputs=outputs,
            domain=MICROSOFT,
            K=weight.shape[1],
            N=weight.shape[0],
            bits=bits,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
        )

    def _rotation(self) -> tuple[str, str]:
        """Cosines and sines [positions, head / 2]."""
        angles = np.outer(np.arange(self._config.max_position_embeddings), self._config.rope_frequencies())
        cos = self.floats("rotation_cos", np.cos(angles).astype(np.float32))
        return cos, self.floats("rotation_sin", np.sin(angles).astype(np.float32))

    def model(self) -> onnx.ModelProto:
        config = self._config

        def caches(pattern: str, length: str) -> list[onnx.ValueInfoProto]:
            shape: list[str | int | None] = ["batch", config.kv_heads, length, config.head_size]
            names = (pattern % (layer, kind) for layer in range(config.num_hidden_layers) for kind in ("key", "value"))
            return [helper.make_tensor_value_info(name, self._type, shape) for name in names]

        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"])
        mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"])
        logits = helper.make_tensor_value_info("logits", self._type, ["batch", 1, config.vocab_size])
        graph = helper.make_graph(
            self._nodes,
            self._checkpoint.architecture,
            [ids, mask, *caches("past_key_values.%d.%s", "past")],
            [logits, *caches("present.%d.%s", "total")],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hybrid")
