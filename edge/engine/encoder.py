"""A sentence encoder: an ONNX graph from token ids to one pooled, L2-normed vector a row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge.engine.errors import ContextError, ModelError
from edge.engine.session import SessionConfig, open_session

Vectors = NDArray[np.float32]
Tokens = Sequence[int]

_OUTPUT = "embedding"


class Encoder:
    """One model: `model.onnx` (inputs `input_ids`, `attention_mask` int64 [batch, seq]; output `embedding` float32
    [batch, width]) and `tokenizer.json`, whose truncation says how many tokens the model reads.
    """

    def __init__(self, folder: Path, session: SessionConfig) -> None:
        """
        Raises:
            ModelError: the files are not an encoder, or cannot run here.
        """
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as exc:  # the library raises nothing narrower
            raise ModelError(f"{path}: cannot be read as a tokenizer.json ({exc})") from exc
        if not self._tokenizer.truncation:
            raise ModelError(f"{path}: has no truncation; it must say how many tokens the model reads")
        self.context = int(self._tokenizer.truncation["max_length"])
        self._vocabulary = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self._tokenizer.no_padding()
        self._session = open_session(folder / "model.onnx", session)
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        if _OUTPUT not in outputs:
            raise ModelError(f"{folder}: the model has no output {_OUTPUT!r}; export it with `hybrid models`")
        self.width = int(outputs[_OUTPUT][-1])

    def vocabulary(self) -> dict[str, int]:
        """Every token's id; the ids of a BERT vocabulary's words fall with their frequency."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=False))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the model's special tokens, cut at `context`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def check(self, tokens: Tokens) -> list[int]:
        """Ids that a caller chose, cut at `context`; they must bring the model's special tokens along.

        Raises:
            ContextError: there are none, or one is outside the vocabulary.
        """
        if not tokens:
            raise ContextError("the input has no tokens; it needs at least one", "input")
        if (largest := max(tokens)) >= self._vocabulary or min(tokens) < 0:
            raise ContextError(f"{largest} is no token of this model, which has {self._vocabulary}", "input")
        return list(tokens[: self.context])

    def embed(self, rows: Sequence[Tokens]) -> Vectors:
        """L2-normed vectors [rows, width], each the same whatever the other rows, unless the model is int8-dynamic."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        vectors: Vectors = self._session.run([_OUTPUT], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        """`tokenize` and `embed`."""
        return self.embed(self.tokenize(texts))
