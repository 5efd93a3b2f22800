"""
The judge of the semantic cache as ONNX: all-MiniLM-L6-v2 that reads two questions at once.

Its weights are MiniLM's plus a product of two thin matrices each (Hu et al. 2021, arXiv:2106.09685), so that a small
file, `question-judge.safetensors` beside this module, makes one of the other; `loadtests/judge` fits it.

The graph takes `input_ids`, `token_types` and `positions` (int64 [batch, seq], without padding) and gives `logit`
(float32 [batch]), the log-odds that both ask the same. A type is the question (0 or 1) plus twice what the other one
has for the word; each question's positions begin at 0.
"""

from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from edge.engine.artifact import FileDigest, digest_file
from edge.models.catalog import Exporter, Precision, Prepare
from edge.models.errors import ExportError
from edge.models.minilm import MASKED, Bert, BertConfig, Weights, read_config, write_tokenizer

CHANGES: Final = "question-judge.safetensors"
SETTINGS: Final = "judge.json"
INPUTS: Final = ("input_ids", "token_types", "positions")
OUTPUT: Final = "logit"
SEPARATORS: Final = (101, 102)
_WORDS: Final = "embeddings.word_embeddings.weight"
_PLACES: Final = "embeddings.position_embeddings.weight"


def packaged_changes() -> Path:
    """The changes of the weights that ship with the project."""
    return Path(str(resources.files("edge.models") / CHANGES))


def export(source: Path, destination: Path, prepare: Prepare) -> None:
    """Write `model.onnx`, `tokenizer.json` and `judge.json` (the thresholds) into the existing folder `destination`.

    Raises `ExportError` if `source` is not all-MiniLM-L6-v2, or the packaged changes are not what `prepare` says.
    """
    Exporter.JUDGE.require(prepare.precision)
    changes = packaged_changes()
    _check(changes, prepare.changes)
    write_judge(source, changes, destination, prepare.precision)


def write_judge(source: Path, changes: Path, destination: Path, precision: Precision) -> None:
    """`export` with any changes."""
    config = read_config(source)
    try:
        weights = merge(load_file(source / "model.safetensors"), load_file(changes))
        with safe_open(changes, framework="numpy") as file:
            settings = dict(file.metadata() or {})
        model = _build(config, weights, precision)
    except (OSError, SafetensorError) as exc:
        raise ExportError(f"{source} and {changes}: cannot be read ({exc}); pull the model again.") from exc
    except (KeyError, ValueError) as exc:
        raise ExportError(f"{changes}: does not fit the weights in {source} ({exc}).") from exc
    (destination / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    content = {name: float(value) for name, value in sorted(settings.items())}
    (destination / SETTINGS).write_bytes(msgspec.json.encode(content) + b"\n")
    write_tokenizer(source, destination, max_tokens=config.max_position_embeddings)


def merge(base: Weights, changes: Weights) -> Weights:
    """The judge's weights: `NAME.up` [out, rank] times `NAME.down` [rank, in] is added, any other name replaces."""
    merged = dict(base)
    for name, value in changes.items():
        stem, _, part = name.rpartition(".")
        if part == "up":
            down = changes[f"{stem}.down"].astype(np.float32)
            merged[f"{stem}.weight"] = base[f"{stem}.weight"] + value.astype(np.float32) @ down
        elif part != "down":
            merged[name] = value.astype(np.float32)
    return merged


def _check(changes: Path, wanted: FileDigest | None) -> None:
    try:
        found = digest_file(changes)
    except FileNotFoundError as exc:
        raise ExportError(f"{changes}: missing; an image has no weights: pull it outside, or install again.") from exc
    except OSError as exc:
        raise ExportError(f"{changes}: cannot be read ({exc.strerror}); install the package again.") from exc
    if found != wanted:
        raise ExportError(f"{changes}: its sha256 is {found.sha256}, not the catalogue's; install the package again.")


def _build(config: BertConfig, weights: Weights, precision: Precision) -> onnx.ModelProto:
    layers = _Judge(config, weights, precision)
    ids, types, positions = INPUTS
    hidden = layers.embed_pair(ids, types, positions)
    for index in range(config.num_hidden_layers):
        hidden = layers.encode(hidden, None, f"encoder.layer.{index}")
    layers.judge(hidden, ids, types)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in INPUTS]
    return layers.finish("judge", inputs, helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch"]))


class _Judge(Bert):
    """MiniLM with more types of tokens and a verdict."""

    gelu = "tanh"

    def embed_pair(self, ids: str, types: str, positions: str) -> str:
        """Word + position + type, normalized: [batch, seq, hidden]."""
        words = self.look_up(_WORDS, ids)
        places = self.op("Gather", self.constant("places", self._weights[_PLACES]), positions)
        kinds = self.op("Gather", self.constant("types", self._weights["types"]), types)
        return self.normalize(self.op("Add", self.op("Add", words, places), kinds), "embeddings.LayerNorm")

    def judge(self, hidden: str, ids: str, types: str) -> str:
        """What speaks for it in the first token and in the means of both questions, less what single words say."""
        stored = self.op("Cast", self.op("Mod", types, self.ints(2)), to=TensorProto.FLOAT)
        one = self._mean(hidden, self.op("Sub", self.scalar(1.0), stored))
        other = self._mean(hidden, stored)
        first = self.op("Squeeze", self.op("Gather", hidden, self.ints(0), axis=1), self.ints(1))
        apart, alike = self.op("Abs", self.op("Sub", one, other)), self.op("Mul", one, other)
        pooled = self.op("Concat", first, apart, alike, axis=1)
        pooled = self.op("Gelu", self.linear_exact(pooled, "hidden"), approximate="none")
        verdict = self.op("Squeeze", self.linear_exact(pooled, "verdict"), self.ints(1))
        return self.op("Sub", verdict, self._differ(hidden, ids), out=OUTPUT)

    def _differ(self, hidden: str, ids: str) -> str:
        """The log of the sum of the odds that each word makes a difference; separators are no words: [batch]."""
        differs = self.op("Squeeze", self.linear_exact(hidden, "difference"), self.ints(2))
        separators = [self.op("Equal", ids, self.ints(one)) for one in SEPARATORS]
        masked = self.op("Where", self.op("Or", *separators), self.scalar(MASKED), differs)
        return self.op("ReduceLogSumExp", masked, self.ints(1), keepdims=0)

    def linear_exact(self, hidden: str, prefix: str) -> str:
        """In 32 bits: small, and nothing behind it evens out what is lost."""
        weight = self.constant(f"{prefix}.weight", self._weights[f"{prefix}.weight"].T)
        bias = self.constant(f"{prefix}.bias", self._weights[f"{prefix}.bias"])
        return self.op("Add", self.op("MatMul", hidden, weight), bias)

    def _mean(self, hidden: str, side: str) -> str:
        column = self.op("Unsqueeze", side, self.ints(2))
        total = self.op("ReduceSum", self.op("Mul", hidden, column), self.ints(1), keepdims=0)
        return self.op("Div", total, self.op("ReduceSum", column, self.ints(1), keepdims=0))
