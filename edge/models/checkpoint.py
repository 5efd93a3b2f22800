"""Checkpoints in Hugging Face layout: config.json, safetensors (whole or sharded), tokenizer files."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from edge.models.errors import ExportError

ARCHITECTURES: Final = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}

Count = Annotated[int, Meta(ge=1)]
Floats = NDArray[np.float32]
T = TypeVar("T")


class Rope(Struct, frozen=True):
    """`rope_scaling`, or transformers 5's `rope_parameters`."""

    rope_type: str | None = None
    type: str | None = None  # what older files call rope_type
    rope_theta: float | None = None
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


class DecoderConfig(Struct, frozen=True):
    """The keys of config.json that the graph depends on."""

    architectures: list[str]
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    max_position_embeddings: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    def rope_frequencies(self) -> NDArray[np.float64]:
        """Radians a position for each pair of a head (Su et al. 2021, arXiv:2104.09864), with Llama 3's scaling.

        Raises:
            ExportError: another kind of scaling.
        """
        rope = self.rope_parameters or self.rope_scaling or Rope()
        theta = rope.rope_theta or self.rope_theta
        frequencies = theta ** -(np.arange(0, self.head_size, 2, dtype=np.float64) / self.head_size)
        match rope.rope_type or rope.type or "default":
            case "default":
                return frequencies
            case "linear":
                return frequencies / rope.factor
            case "llama3":
                return _llama3(frequencies, rope)
            case other:
                raise ExportError(
                    f"config.json: rope_scaling {other!r} is not supported; use default, linear or llama3."
                )


class _GenerationConfig(Struct, frozen=True):
    eos_token_id: int | list[int] | None = None


class _Index(Struct, frozen=True):
    weight_map: dict[str, str]


class Checkpoint:
    """An open checkpoint: `with Checkpoint(folder) as checkpoint`. Tensors are read as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ExportError: no checkpoint of a kind that can be exported.
        """
        self.folder = folder
        self.config = _decode(folder / "config.json", DecoderConfig)
        self.architecture = self._check()
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._unread: set[str] = set()

    def __enter__(self) -> Self:
        index = self.folder / "model.safetensors.index.json"
        shards = set(_decode(index, _Index).weight_map.values()) if index.exists() else {"model.safetensors"}
        with ExitStack() as stack:
            for shard in sorted(shards):
                path = self.folder / Path(shard).name
                try:
                    file = stack.enter_context(safe_open(path, framework="numpy"))
                except (OSError, SafetensorError) as exc:
                    raise ExportError(f"{path}: cannot be read ({exc}); pull the model again.") from exc
                self._files |= dict.fromkeys(file.keys(), file)
            self._stack = stack.pop_all()
        self._unread = set(self._files)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tensor(self, name: str) -> Floats:
        """A tensor as float32.

        Raises:
            ExportError: there is none of this name.
        """
        found = self.find(name)
        if found is None:
            raise ExportError(f"{self.folder}: has no tensor {name}; it is not a complete {self.architecture} model.")
        return found

    def find(self, name: str) -> Floats | None:
        """A tensor as float32, or None."""
        if name not in self._files:
            return None
        self._unread.discard(name)
        tensor: Floats = self._files[name].get_tensor(name).astype(np.float32)
        return tensor

    def unread(self) -> Iterator[str]:
        """Tensors that nobody asked for, except those that say nothing new."""
        derived = ("rotary_emb.inv_freq",) + (("lm_head.weight",) if self.config.tie_word_embeddings else ())
        return (name for name in sorted(self._unread) if not name.endswith(derived))

    def end_tokens(self) -> list[int]:
        """generation_config.json knows better than config.json which tokens end a turn.

        Raises:
            ExportError: neither names one.
        """
        path = self.folder / "generation_config.json"
        chosen = _decode(path, _GenerationConfig).eos_token_id if path.exists() else None
        chosen = self.config.eos_token_id if chosen is None else chosen
        if chosen is None:
            raise ExportError(f"{path}: names no eos_token_id; add the id of the token that ends an answer.")
        return [chosen] if isinstance(chosen, int) else chosen

    def _check(self) -> Literal["llama", "qwen2"]:
        path, config = self.folder / "config.json", self.config
        found = config.architectures[0] if config.architectures else "none"
        if found not in ARCHITECTURES:
            raise ExportError(
                f"{path}: architecture {found} cannot be exported; use one of {', '.join(ARCHITECTURES)}."
            )
        if config.hidden_act != "silu":
            raise ExportError(f"{path}: hidden_act {config.hidden_act!r} cannot be exported; only 'silu' can.")
        if config.use_sliding_window:
            raise ExportError(f"{path}: use_sliding_window cannot be exported; set it to false if the model allows.")
        if config.head_size % 8:
            raise ExportError(f"{path}: heads of {config.head_size} cannot be exported; the size must divide by 8.")
        return "llama" if found == "LlamaForCausalLM" else "qwen2"


def _llama3(frequencies: NDArray[np.float64], rope: Rope) -> NDArray[np.float64]:
    """Llama 3.1's stretch of slow frequencies (github.com/meta-llama/llama-models, `models/llama3/model.py`)."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = np.clip(smooth, 0, 1)
    scaled: NDArray[np.float64] = frequencies * kept + frequencies / rope.factor * (1 - kept)
    return scaled


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as exc:
        raise ExportError(f"{path}: {exc}; pull the model again.") from exc
