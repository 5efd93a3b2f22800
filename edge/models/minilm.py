"""
all-MiniLM-L6-v2 as ONNX, built from its safetensors without PyTorch.

The graph takes `input_ids` and `attention_mask` (int64 [batch, seq]) and gives `embedding` (float32 [batch, hidden]):
BERT (Devlin et al. 2019, arXiv:1810.04805), then the mean over the unmasked tokens and L2 normalization, as the model's
`1_Pooling` and `2_Normalize` modules prescribe (Reimers and Gurevych 2019, arXiv:1908.10084).

With 8-bit weights the activations are quantized per row and block inside `MatMulNBits`, never over the whole batch, so
a sentence's vector does not depend on its neighbours and can be cached. Blocks of 128 would be a sixth faster but break
this: onnxruntime 1.31's AVX-512 kernel then rounds an odd last row differently (a vector's cosine to itself: .9995).

The dynamic form multiplies integers, in about a quarter of the time. Its activations have one scale over everything
in the batch, so a sentence's vector is its own only where it runs alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from msgspec import Struct
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edge.models.catalog import Exporter, Precision
from edge.models.errors import ExportError
from edge.models.quantization import BLOCK, Floats, quantize_blocks, quantize_rows

OPSET = 20
IR_VERSION = 9
PRODUCER = "hybrid-inference-router"
INPUTS = ("input_ids", "attention_mask")
# Quantize the activations to 8 bits too, per row and block: the fast kernel of MatMulNBits.
ACCURACY_LEVEL = 4
# Without VNNI, x86 kernels add two products of uint8 activations and int8 weights in 16 bits. 2 * 255 * 63 still fits:
# a score fitted on one machine must not meet saturated vectors on another.
LARGEST_STEP = 63
# What BERT adds to masked scores: exp() of it is exactly 0, so padding changes nothing.
MASKED = -10000.0

T = TypeVar("T")
Weights = Mapping[str, Floats]


class BertConfig(Struct, frozen=True):
    """The keys of config.json that the graph depends on."""

    model_type: str
    hidden_act: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float
    max_position_embeddings: int


class SentenceConfig(Struct, frozen=True):
    """sentence_bert_config.json: how many tokens a sentence may have."""

    max_seq_length: int


def export(source: Path, destination: Path, *, precision: Precision) -> None:
    """Write `model.onnx` and `tokenizer.json` into the existing folder `destination`. The same bytes every time.

    Raises `ExportError` if `source` is not a BERT sentence encoder in Hugging Face layout, or not made in `precision`.
    """
    Exporter.MINILM.require(precision)
    config = read_config(source)
    try:
        weights: Weights = load_file(source / "model.safetensors")
        model = _build(config, weights, precision)
    except (OSError, SafetensorError) as exc:
        raise ExportError(f"{source / 'model.safetensors'}: cannot be read ({exc}); pull the model again.") from exc
    except KeyError as exc:
        raise ExportError(f"{source / 'model.safetensors'}: has no tensor {exc}; it is not this model.") from exc
    (destination / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    limit = _decode(source / "sentence_bert_config.json", SentenceConfig).max_seq_length
    write_tokenizer(source, destination, max_tokens=min(limit, config.max_position_embeddings))


def read_config(source: Path) -> BertConfig:
    """Raises `ExportError` if the checkpoint in `source` is not the BERT that this module builds."""
    config = _decode(source / "config.json", BertConfig)
    if (config.model_type, config.hidden_act) != ("bert", "gelu"):
        raise ExportError(f"{source / 'config.json'}: needs model_type bert and hidden_act gelu; use another exporter.")
    return config


def write_tokenizer(source: Path, destination: Path, *, max_tokens: int) -> None:
    """The source's tokenizer cuts at 128 tokens and pads to 128: cut at the model's own limit, pad nothing."""
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    tokenizer["padding"] = None
    tokenizer["truncation"] = {"direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}
    (destination / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as exc:
        raise ExportError(f"{path}: {exc}; pull the model again.") from exc


def _build(config: BertConfig, weights: Weights, precision: Precision) -> onnx.ModelProto:
    layers = Bert(config, weights, precision)
    ids, attended = INPUTS
    mask = layers.op("Cast", attended, to=TensorProto.FLOAT)
    hidden = layers.embed(ids)
    bias = layers.mask_bias(mask)
    for index in range(config.num_hidden_layers):
        hidden = layers.encode(hidden, bias, f"encoder.layer.{index}")
    layers.pool(hidden, mask)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in INPUTS]
    vector = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", config.hidden_size])
    return layers.finish("minilm", inputs, vector)


class Bert:
    """Collects the nodes of a BERT graph; every method adds some and returns the name of their output."""

    gelu = "none"

    def __init__(self, config: BertConfig, weights: Weights, precision: Precision) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._config = config
        self._weights = weights
        self._precision = precision
        self._quantized: set[str] = set()

    def op(self, kind: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [name], name=f"node_{name}", domain=domain, **attributes)
        )
        return name

    def finish(self, name: str, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self.nodes, name, inputs, [output], list(self.initializers.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
        onnx.checker.check_model(model)
        return model

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(f"scalar_{value}", np.array(value, np.float32))

    def embed(self, ids: str) -> str:
        """Word + position + token type 0, normalized: [batch, seq, hidden]."""
        length = self.op("Shape", ids, start=1, end=2)
        table = self.constant("positions", self._weights["embeddings.position_embeddings.weight"])
        positions = self.op("Slice", table, self.ints(0), length, self.ints(0))
        token_type = self.constant("token_type", self._weights["embeddings.token_type_embeddings.weight"][0])
        words = self.op("Add", self.look_up("embeddings.word_embeddings.weight", ids), token_type)
        return self.normalize(self.op("Add", words, positions), "embeddings.LayerNorm")

    def mask_bias(self, mask: str) -> str:
        """0 where a token may be looked at, `MASKED` where not: [batch, 1, 1, seq]."""
        masked = self.op("Sub", self.scalar(1.0), self.op("Unsqueeze", mask, self.ints(1, 2)))
        return self.op("Mul", masked, self.scalar(MASKED))

    def encode(self, hidden: str, bias: str | None, prefix: str) -> str:
        """One layer; `bias` is None where there is no padding."""
        attended = self.linear(
            self.attend(hidden, bias, f"{prefix}.attention.self"), f"{prefix}.attention.output.dense"
        )
        hidden = self.normalize(self.op("Add", attended, hidden), f"{prefix}.attention.output.LayerNorm")
        widened = self.op("Gelu", self.linear(hidden, f"{prefix}.intermediate.dense"), approximate=self.gelu)
        narrowed = self.linear(widened, f"{prefix}.output.dense")
        return self.normalize(self.op("Add", narrowed, hidden), f"{prefix}.output.LayerNorm")

    def attend(self, hidden: str, bias: str | None, prefix: str) -> str:
        heads, width = self._config.num_attention_heads, self._config.hidden_size
        size = width // heads

        def split(part: str, order: list[int]) -> str:
            joined = self.linear(hidden, f"{prefix}.{part}")
            return self.op("Transpose", self.op("Reshape", joined, self.ints(0, 0, heads, size)), perm=order)

        scores = self.op("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scaled = self.op("Div", scores, self.scalar(size**0.5))
        scaled = self.op("Add", scaled, bias) if bias else scaled
        context = self.op("MatMul", self.op("Softmax", scaled, axis=-1), split("value", [0, 2, 1, 3]))
        return self.op("Reshape", self.op("Transpose", context, perm=[0, 2, 1, 3]), self.ints(0, 0, width))

    def pool(self, hidden: str, mask: str) -> str:
        """The mean over unmasked tokens, scaled to length 1: [batch, hidden]."""
        column = self.op("Unsqueeze", mask, self.ints(2))
        total = self.op("ReduceSum", self.op("Mul", hidden, column), self.ints(1), keepdims=0)
        count = self.op("Max", self.op("ReduceSum", column, self.ints(1), keepdims=0), self.scalar(1e-9))
        mean = self.op("Div", total, count)
        norm = self.op("Max", self.op("ReduceL2", mean, self.ints(1), keepdims=1), self.scalar(1e-12))
        return self.op("Div", mean, norm, out="embedding")

    def normalize(self, hidden: str, prefix: str) -> str:
        scale = self.constant(f"{prefix}.weight", self._weights[f"{prefix}.weight"])
        shift = self.constant(f"{prefix}.bias", self._weights[f"{prefix}.bias"])
        return self.op("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=self._config.layer_norm_eps)

    def linear(self, hidden: str, prefix: str) -> str:
        weight = self._weights[f"{prefix}.weight"]
        bias = self.constant(f"{prefix}.bias", self._weights[f"{prefix}.bias"])
        match self._precision:
            case Precision.INT8:
                product = self._multiply_blocks(hidden, prefix, weight)
            case Precision.INT8_DYNAMIC:
                product = self._multiply_integers(hidden, prefix, weight)
            case _:
                product = self.op("MatMul", hidden, self.constant(f"{prefix}.weight", weight.T))
        return self.op("Add", product, bias)

    def _multiply_blocks(self, hidden: str, prefix: str, weight: Floats) -> str:
        outputs, inputs = weight.shape
        blocks, scales = quantize_blocks(weight, 8)
        return self.op(
            "MatMulNBits",
            hidden,
            self.constant(f"{prefix}.weight", blocks),
            self.constant(f"{prefix}.scale", scales),
            domain="com.microsoft",
            K=inputs,
            N=outputs,
            bits=8,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
        )

    def _multiply_integers(self, hidden: str, prefix: str, weight: Floats) -> str:
        """In the order of nodes that onnxruntime fuses into one `MatMulIntegerToFloat`, a scale for each output."""
        rows, scales = quantize_rows(weight, LARGEST_STEP)
        steps, step, zero = self._quantize(hidden)
        product = self.op(
            "MatMulInteger",
            steps,
            self.constant(f"{prefix}.weight", rows.T),
            zero,
            self.constant(f"{prefix}.zero", np.zeros(len(rows), np.int8)),
        )
        scale = self.op("Mul", step, self.constant(f"{prefix}.scale", scales[:, 0]))
        return self.op("Mul", self.op("Cast", product, to=TensorProto.FLOAT), scale)

    def _quantize(self, hidden: str) -> tuple[str, str, str]:
        """uint8 steps, the size of one, and the one that is zero; once for all that multiply `hidden`."""
        outputs = (f"{hidden}_steps", f"{hidden}_step", f"{hidden}_zero")
        if hidden not in self._quantized:
            self._quantized.add(hidden)
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [hidden], outputs, name=f"node_{outputs[0]}"))
        return outputs

    def look_up(self, name: str, ids: str) -> str:
        table = self._weights[name]
        if self._precision is Precision.FLOAT32:
            return self.op("Gather", self.constant(name, table), ids)
        rows, scales = quantize_rows(table)
        row = self.op("Cast", self.op("Gather", self.constant(name, rows), ids), to=TensorProto.FLOAT)
        return self.op("Mul", row, self.op("Gather", self.constant(f"{name}.scale", scales), ids))
