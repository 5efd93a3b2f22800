"""
Between text and token ids: the model's tokenizer, answers decoded token by token, and stop strings.

Every token has bytes of its own, whatever its neighbours, so a text is the UTF-8 reading of its tokens' bytes. That is
exact for byte-level BPE (GPT-2, Llama 3, Qwen) and for SentencePiece with byte fallback (Llama 2).
"""

import codecs
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HuggingFaceTokenizer

from edge.engine.errors import ModelError

_BYTE_PIECE = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")


class Tokenizer:
    """One model's `tokenizer.json`. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ModelError: not a tokenizer, or one whose tokens have no bytes of their own.
        """
        try:
            self.source = path.read_text(encoding="utf-8")
            self._tokenizer = HuggingFaceTokenizer.from_str(self.source)
            described = json.loads(self.source)
        except Exception as exc:
            raise ModelError(f"{path}: cannot be read as a tokenizer.json ({exc})") from exc
        kinds = _decoder_kinds(described.get("decoder"))
        self._byte_level = "ByteLevel" in kinds
        if not self._byte_level and not kinds & {"Metaspace", "ByteFallback"}:
            found = ", ".join(sorted(kinds)) or "none"
            raise ModelError(f"{path}: its decoder ({found}) is neither byte-level BPE nor SentencePiece")
        added = described.get("added_tokens") or []
        self._bytes = {token["id"]: b"" if token.get("special") else token["content"].encode() for token in added}

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids; a rendered chat template brings its special tokens along: `add_special=False`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """What a token adds to the text: nothing if it is special or unknown."""
        if (known := self._bytes.get(token)) is None:
            known = self._bytes[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> bytes:
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if self._byte_level:
            return bytes(map(_byte_values().__getitem__, piece))
        if match := _BYTE_PIECE.match(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def __len__(self) -> int:
        """How many tokens there are."""
        count: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return count


class Utf8Stream:
    """Text from bytes that arrive in pieces; a character appears when its last byte did."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._open = False  # whether a character lacks bytes

    def push(self, piece: bytes) -> str:
        """The characters that `piece` completes."""
        if not self._open and piece.isascii():
            return piece.decode()
        text = self._decoder.decode(piece)
        self._open = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """What is left: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Cuts a text at the stop string that ends first, and lets no part of it out, however the text is split."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certainly before any stop string."""
        if self.stopped or not self._stops:
            return "" if self.stopped else piece
        text = self._held + piece
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        keep = self._longest_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """How many characters at the end of `text` a stop string begins with."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)


def _decoder_kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    nested: set[str] = set().union(*map(_decoder_kinds, decoder.get("decoders", [])))
    return nested | {str(decoder.get("type"))}


@cache
def _byte_values() -> dict[str, int]:
    """GPT-2's spelling of bytes as printable characters (github.com/openai/gpt-2, `src/encoder.py`)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
