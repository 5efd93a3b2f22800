"""
Whether two questions ask the same though not every word of them is explained: a small network that reads both.

It is asked only about pairs that no fact tells apart (`facts`). The model is an artifact of its own, which
`edge/models/judge.py` makes of all-MiniLM-L6-v2; nothing here learns.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

import msgspec
import numpy as np
import onnxruntime as ort
from msgspec import Struct

from edge.engine.artifact import Artifact, ArtifactKind
from edge.engine.errors import ModelError
from edge.engine.session import SessionConfig, open_session
from router.cache.guard.joining import Joined, Joiner
from router.cache.guard.lexicon import Lexicon

REMEMBERED: Final = 1024
"""Verdicts, with the texts that they are about."""
_OUTPUT: Final = "logit"
_SURE: Final = 4.0
"""So far below the threshold in one order, the other one is not asked: that is most of what is refused."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`judge.json`: the log-odds from which on a pair passes, and below which one does not that rules explain."""

    threshold: float
    veto: float


class Judge:
    """A model and its thresholds; may be used by many threads. The last verdicts are remembered."""

    def __init__(self, session: ort.InferenceSession, joiner: Joiner, settings: Settings) -> None:
        self._session, self._joiner, self.settings = session, joiner, settings
        self._weigh: Callable[[str, str], float] = lru_cache(REMEMBERED)(self._compute)

    @classmethod
    def open(cls, folder: Path, lexicon: Lexicon) -> Self:
        """Of an artifact.

        Raises:
            EngineError: there is none, it is damaged, or no judge.
        """
        artifact = Artifact.open(folder, ArtifactKind.JUDGE)
        try:
            settings = msgspec.json.decode(artifact.file("judge.json").read_bytes(), type=Settings)
        except msgspec.MsgspecError as exc:
            raise ModelError(f"{folder / 'judge.json'}: {exc}; pull the model again") from exc
        joiner = Joiner.load(artifact.file("tokenizer.json"), lexicon)
        return cls(open_session(artifact.file("model.onnx"), SessionConfig(threads=1)), joiner, settings)

    def accept(self, asked: str, stored: str) -> bool:
        """Whether they ask the same; the same whichever was asked first."""
        return self.weigh(asked, stored) >= self.settings.threshold

    def oppose(self, asked: str, stored: str) -> bool:
        """Whether they do not, whatever rules say."""
        return self.weigh(asked, stored) < self.settings.veto

    def weigh(self, asked: str, stored: str) -> float:
        """Log-odds that both ask the same; minus infinity, where one is too long to say."""
        return self._weigh(*sorted((asked, stored)))

    def _compute(self, one: str, other: str) -> float:
        there, back = self._joiner.join(one, other), self._joiner.join(other, one)
        if there is None or back is None:
            return float("-inf")
        first = self._run(there)
        if first < self.settings.threshold - _SURE:
            return first
        return (first + self._run(back)) / 2

    def _run(self, joined: Joined) -> float:
        """Alone: the scale of the activations is one over a whole batch."""
        inputs = {"input_ids": joined.ids, "token_types": joined.types, "positions": joined.positions}
        found = self._session.run([_OUTPUT], {name: row[np.newaxis] for name, row in inputs.items()})
        return float(np.asarray(found[0])[0])
