"""The user's prompts: JSON lines with `prompt` or `messages`, and perhaps `id`, `answer` (the reference), `domain`."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from edge.engine.settings import ConfigError
from router.scoring.dataset import Turn


class PromptRow(Struct, frozen=True, kw_only=True):
    """A line of the file."""

    id: str | int | None = None
    prompt: str = ""
    messages: list[Turn] = []
    answer: str | int | float | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt to be answered by both tiers; `reference` is None where the file gives no answer."""

    id: str
    turns: tuple[Turn, ...]
    reference: str | None
    domain: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """All questions, in the order of the file, and the file's digest."""

    questions: list[Question]
    sha256: str


def read_prompts(path: Path) -> Prompts:
    """Read the file; a line without an id is named by its number.

    Raises:
        ConfigError: one line naming file, line and fix.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); give a file of JSON lines") from exc
    decoder = msgspec.json.Decoder(PromptRow)
    questions: dict[str, Question] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        question = _read_line(decoder, f"{path}:{number}", number, line)
        if question.id in questions:
            raise ConfigError(f"{path}:{number}: the id {question.id!r} occurs twice; ids must be unique")
        questions[question.id] = question
    if not questions:
        raise ConfigError(f"{path}: has no rows; give at least one JSON object a line")
    return Prompts(list(questions.values()), sha256(content).hexdigest())


def _read_line(decoder: "msgspec.json.Decoder[PromptRow]", place: str, number: int, line: bytes) -> Question:
    try:
        row = decoder.decode(line)
    except msgspec.MsgspecError as exc:
        raise ConfigError(f"{place}: {exc}; see `hybrid calibrate --help` for what a row is") from exc
    if bool(row.prompt) == bool(row.messages):
        raise ConfigError(f"{place}: needs either prompt or messages; give one of the two")
    return Question(
        str(row.id) if row.id is not None else f"line-{number}",
        tuple(row.messages) or (Turn("user", row.prompt),),
        str(row.answer) if row.answer is not None else None,
        row.domain,
    )
