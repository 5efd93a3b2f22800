"""
Labelled prompts as JSON lines: what `hybrid fit`, `score`, `evaluate` and `calibrate` read and write.

A data row has `id`, `prompt` (or `messages`, as in a chat request), `weak_correct` and `strong_correct` (quality of the
edge's and the cloud's answer, higher is better), and may have `domain`. An answers row has `id`, `weak_answer` (the
edge's whole answer) and may have `tokens` (each with `token`, `logprob` and `top`) and
`finish`. Other keys are ignored.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from edge.engine.settings import ConfigError
from router.query import Conversation, Finish, Message, Prompt, TokenLogprob
from router.scoring import EdgeAnswer

Kind = TypeVar("Kind", bound="Identified")


class Identified(Struct, frozen=True):
    """What every row has."""

    id: str


class Turn(Struct, frozen=True):
    """One message of a conversation."""

    role: str
    content: str


class Row(Identified, frozen=True, kw_only=True):
    """A prompt and how well each side answered it."""

    prompt: str = ""
    messages: list[Turn] = []
    domain: str = ""
    weak_correct: float
    strong_correct: float

    @property
    def gain(self) -> float:
        """How much better the cloud's answer was."""
        return self.strong_correct - self.weak_correct

    def conversation(self) -> Prompt:
        """The prompt as the router sees it."""
        turns = self.messages or [Turn("user", self.prompt)]
        return Conversation(tuple(Message(turn.role, turn.content) for turn in turns))


class AnswerToken(Struct, frozen=True):
    """A token of the edge's answer; `top` has the log-probabilities of the likeliest tokens at its place."""

    token: str
    logprob: float
    top: list[tuple[str, float]] = []


class AnswerRow(Identified, frozen=True, kw_only=True):
    """What the edge answered."""

    weak_answer: str
    tokens: list[AnswerToken] = []
    finish: Finish = Finish.STOP

    def answer(self) -> EdgeAnswer:
        """The answer as the check sees it."""
        logprobs = tuple(
            TokenLogprob(one.token, one.logprob, tuple(TokenLogprob(*top) for top in one.top)) for one in self.tokens
        )
        return EdgeAnswer(self.weak_answer, logprobs, self.finish)


def read_rows(path: Path) -> list[Row]:
    """Rows in the order of the file.

    Raises:
        ConfigError: one line naming file, line and fix.
    """
    rows = _read(path, Row)
    for number, row in enumerate(rows, 1):
        if not row.prompt and not row.messages:
            raise ConfigError(f"{path}:{number}: has neither prompt nor messages; give one")
        if not math.isfinite(row.gain):
            raise ConfigError(f"{path}:{number}: weak_correct and strong_correct must be finite numbers")
    return rows


def read_answers(path: Path) -> dict[str, EdgeAnswer]:
    """The edge's answers by the rows' ids.

    Raises:
        ConfigError: one line naming file, line and fix.
    """
    return {row.id: row.answer() for row in _read(path, AnswerRow)}


def _read(path: Path, kind: type[Kind]) -> list[Kind]:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); give a file of JSON lines") from exc
    rows = list(_decode(path, content, kind))
    if not rows:
        raise ConfigError(f"{path}: has no rows; give at least one JSON object a line")
    if len({row.id for row in rows}) < len(rows):
        twice = next(row.id for index, row in enumerate(rows) if row.id in {one.id for one in rows[:index]})
        raise ConfigError(f"{path}: the id {twice!r} occurs twice; ids must be unique")
    return rows


def _decode(path: Path, content: bytes, kind: type[Kind]) -> Iterator[Kind]:
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError as exc:
            raise ConfigError(f"{path}:{number}: {exc}; see `hybrid fit --help` for what a row is") from exc
