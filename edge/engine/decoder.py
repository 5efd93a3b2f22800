"""
A decoder of onnxruntime-genai's layout on plain onnxruntime, for several sequences at once.

`genai_config.json` names the tensors. Inputs: `input_ids` and `attention_mask` int64 `[batch, n]` and the past;
outputs: `logits` and the present. Sequences occupy slots; slots 0 to n-1 decode together, and a slot beyond them can be
filled with a prompt, piece by piece. Rows are padded on the right: `GroupQueryAttention` with `do_rotary` reads each
row's length from the sum of its mask.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge.engine.cache import CudaKeyValues, HostKeyValues, KeyValues
from edge.engine.errors import ModelError
from edge.engine.sampling import Logits
from edge.engine.session import CUDA, SessionConfig, open_session

_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

_MASK_STEP: Final = 128

Count = Annotated[int, Meta(ge=1)]


class _Names(Struct, frozen=True):
    """Tensor names; those of the cache hold `%d` for the layer."""

    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"
    past_key_names: str = "past_key_values.%d.key"
    past_value_names: str = "past_key_values.%d.value"
    logits: str = "logits"
    present_key_names: str = "present.%d.key"
    present_value_names: str = "present.%d.value"


class _DecoderSection(Struct, frozen=True):
    filename: str
    head_size: Count
    num_hidden_layers: Count
    num_key_value_heads: Count
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}


class _ModelSection(Struct, frozen=True):
    context_length: Count
    vocab_size: Count
    eos_token_id: int | list[int]
    decoder: _DecoderSection


class _GenaiConfig(Struct, frozen=True):
    model: _ModelSection


class Decoder:
    """One model's weights and the memory of its sequences. Not safe for use from several threads at once."""

    def __init__(self, folder: Path, session: SessionConfig, *, slots: int, context: int | None = None) -> None:
        """
        Args:
            folder: Holds `genai_config.json` and the model that it names.
            session: Threads and execution providers.
            slots: How many sequences fit.
            context: Tokens a sequence may have; None means what the model was made for.

        Raises:
            ModelError: the files are not a decoder, or cannot run here.
        """
        config = _read_config(folder / "genai_config.json")
        if context is not None and context > config.context_length:
            raise ModelError(f"context: {context} is more than the model's {config.context_length} tokens")
        self.slots = slots
        self.context = context or config.context_length
        self.vocabulary = config.vocab_size
        ends = config.eos_token_id
        self.end_tokens = frozenset([ends] if isinstance(ends, int) else ends)
        self._session = open_session(folder / config.decoder.filename, session)
        self._names = msgspec.convert(config.decoder.inputs | config.decoder.outputs, _Names)
        self._check_inputs(folder)
        self._shape = [slots, config.decoder.num_key_value_heads, self.context, config.decoder.head_size]
        self._pairs = _cache_pairs(self._names, config.decoder.num_hidden_layers)
        self._dtype: Any = _TYPES[self._input_types()[self._pairs[0][0]]]
        self._logits_dtype: Any = _TYPES[self._session.get_outputs()[0].type]
        make = CudaKeyValues if session.providers[0].name == CUDA else HostKeyValues
        self._cache: KeyValues = make(len(self._pairs), self._shape, self._dtype)
        self._one_row = self._session.get_outputs()[0].shape[1] == 1
        # a step's arrays stay where they are, so that each number of rows is bound only once
        self._ids = np.zeros((slots, 1), np.int64)
        self._mask = np.zeros((slots, 0), np.int64)
        self._masked = [0] * slots
        self._logits = np.empty((slots, 1, self.vocabulary), self._logits_dtype)
        self._step_bindings: dict[int, Any] = {}
        self._slot_bindings: dict[tuple[int, int], Any] = {}

    def prefill(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """Add prompt `tokens` to `slot`, which holds `start` positions; returns logits [vocabulary] after the last."""
        last: Logits = self._read(slot, [tokens], start)[0]
        return last

    def prefill_equal(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Read whole prompts of one length into the slots 0..n-1; returns logits [n, vocabulary] after their last."""
        return self._read(0, prompts, 0)

    def _read(self, slot: int, rows: Sequence[Sequence[int]], start: int) -> Logits:
        ids = np.array(rows, np.int64)
        count, length = ids.shape
        mask = np.ones((count, start + length), np.int64)
        logits = np.empty((count, 1 if self._one_row else length, self.vocabulary), self._logits_dtype)
        if (binding := self._slot_bindings.get((slot, count))) is None:
            binding = self._slot_bindings[slot, count] = self._bind_cache(slot, count)
        self._bind_step(binding, ids, mask, logits)
        self._session.run_with_iobinding(binding)
        last: Logits = logits[:, -1].astype(np.float32, copy=False)
        return last

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Add one token to each of the slots 0..n-1, which hold `lengths` positions.

        Returns logits [n, vocabulary], overwritten by the next step.
        """
        rows = len(tokens)
        self._ids[:rows, 0] = tokens
        self._fit_mask(max(lengths) + 1)
        self._extend_mask(lengths)
        if (binding := self._step_bindings.get(rows)) is None:
            binding = self._step_bindings[rows] = self._bind_cache(0, rows)
            self._bind_step(binding, self._ids[:rows], self._mask[:rows], self._logits[:rows])
        self._session.run_with_iobinding(binding)
        last: Logits = self._logits[:rows, 0].astype(np.float32, copy=False)
        return last

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a sequence of `length` positions to another slot."""
        self._cache.move(source, target, length)

    def _fit_mask(self, longest: int) -> None:
        """The attention's work grows with the mask's width, so it is little wider than needed."""
        width = min(-(-longest // _MASK_STEP) * _MASK_STEP, self.context)
        if width != self._mask.shape[1]:
            self._mask = np.zeros((self.slots, width), np.int64)
            self._masked = [0] * self.slots
            self._step_bindings.clear()

    def _extend_mask(self, lengths: Sequence[int]) -> None:
        """Let each row end one position further; a row that holds another sequence than before is written anew."""
        for row, length in enumerate(lengths):
            if self._masked[row] != length:
                self._mask[row, :length] = 1
                self._mask[row, length:] = 0
            self._mask[row, length] = 1
            self._masked[row] = length + 1

    def _bind_cache(self, slot: int, rows: int) -> Any:
        """The slots `slot` to `slot + rows - 1` as past and present."""
        binding = self._session.io_binding()
        shape = [rows, *self._shape[1:]]
        for buffer, (past, present) in enumerate(self._pairs):
            address = self._cache.address(buffer, slot)
            binding.bind_input(past, self._cache.device, 0, self._dtype, shape, address)
            binding.bind_output(present, self._cache.device, 0, self._dtype, shape, address)
        return binding

    def _bind_step(self, binding: Any, ids: NDArray[Any], mask: NDArray[Any], logits: NDArray[Any]) -> None:
        """The arrays must outlive the run."""
        for name, array in ((self._names.input_ids, ids), (self._names.attention_mask, mask)):
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        binding.bind_output(self._names.logits, "cpu", 0, self._logits_dtype, logits.shape, logits.ctypes.data)

    def _input_types(self) -> dict[str, str]:
        return {tensor.name: tensor.type for tensor in self._session.get_inputs()}

    def _check_inputs(self, folder: Path) -> None:
        names = set(self._input_types())
        wanted = {self._names.input_ids, self._names.attention_mask, self._names.past_key_names % 0}
        if missing := wanted - names:
            raise ModelError(f"{folder}: the model has no input {min(missing)!r}; export it with `hybrid export`")
        strange = {name for name in names - wanted if not name.startswith(self._names.past_key_names.split("%")[0])}
        if strange:
            raise ModelError(f"{folder}: the model wants {min(strange)!r}, which this engine does not feed")


def _cache_pairs(names: _Names, layers: int) -> list[tuple[str, str]]:
    kinds = ((names.past_key_names, names.present_key_names), (names.past_value_names, names.present_value_names))
    return [(past % layer, present % layer) for layer in range(layers) for past, present in kinds]


def _read_config(path: Path) -> _ModelSection:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_GenaiConfig).model
    except (OSError, msgspec.MsgspecError) as exc:
        raise ModelError(f"{path}: cannot be read as a genai_config.json ({exc})") from exc
