"""A tiny embedding artifact: the L2-normed mean of random token vectors, through the same seam as a real encoder."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from edge.engine.artifact import ArtifactKind, write_manifest

WIDTH = 16
LONGEST = 8
WORDS = ["[PAD]", "[UNK]", "the", "cat", "sleeps", "stocks", "fell", "on", "monday"]


def write_embedding_artifact(folder: Path) -> Path:
    """A model of `WORDS` that reads `LONGEST` tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(3).normal(0, 1, (len(WORDS), WIDTH)).astype(np.float32)
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array([2]), "two"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["column"]),
        helper.make_node("Mul", ["words", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=-1, p=2),
    ]
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask")
    ]
    vectors = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(nodes, "tiny", ids, [vectors], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(LONGEST)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str())))
    write_manifest(folder, kind=ArtifactKind.EMBEDDING, name="tiny-embedding", version="1")
    return folder
