"""What became of one request, and the CSV file of all of them: the one source of every figure of a run."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from router.query import Priority

RECORDS, SCENARIO, STRAIN = "requests.csv", "scenario.json", "strain.json"
"""The files of a run that its generator reads and leaves."""


class Form(StrEnum):
    """How an answer is asked for."""

    CHAT = "chat"
    STREAM = "stream"
    EMBEDDING = "embedding"


class Origin(StrEnum):
    """Where a question comes from."""

    EASY = "easy"
    """New, of the easier half of its kind."""
    HARD = "hard"
    """New, of the harder half of its kind."""
    DUPLICATE = "duplicate"
    """Asked before, word for word."""
    PARAPHRASE = "paraphrase"
    """Asked before in other words: the same numbers and letters, so the same answer."""


class Record(Struct, frozen=True, array_like=True):
    """One request; times in seconds from the start of the run, on its worker's clock.

    `due` is when it was to be sent: latency counts from there, also when the generator was late. In a closed loop it
    is when its user was ready to send it. Empty strings and None: the answer did not say.
    """

    number: int
    worker: int
    form: Form
    origin: Origin
    priority: Priority
    model: str
    due: float
    sent: float
    ended: float
    deadline_ms: int | None = None
    first: float | None = None
    """The first token of a stream."""
    gap_ms: float | None = None
    """Mean time between a stream's pieces."""
    longest_gap_ms: float | None = None
    status: int = 0
    """HTTP; 0 for an answer that never came."""
    error: str = ""
    right: bool | None = None
    """Whether the answer was the known one; None where there was none."""
    tier: str = ""
    reason: str = ""
    cache: str = ""
    degraded: str = ""
    queue_ms: float | None = None
    overhead_ms: float | None = None


_FIELDS = Record.__struct_fields__


class Recorder:
    """Writes records as they come."""

    def __init__(self, rows: "csv.writer") -> None:  # type: ignore[valid-type]
        self._rows = rows
        self.count = 0

    def write(self, records: Iterable[Record]) -> None:
        """A row each; times to the microsecond."""
        for record in records:
            self._rows.writerow([_spell(getattr(record, name)) for name in _FIELDS])  # type: ignore[attr-defined]
            self.count += 1


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    """A file of records that has its name only once it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as sink:
        rows = csv.writer(sink)
        rows.writerow(_FIELDS)
        yield Recorder(rows)
    partial.replace(path)


def read_records(path: Path) -> Sequence[Record]:
    """Every record of a file, in the order of `due`.

    Raises:
        FileNotFoundError: there was no such run.
        msgspec.ValidationError: it is not such a file.
    """
    with path.open(newline="", encoding="utf-8") as source:
        rows = csv.reader(source)
        next(rows, None)
        records = [msgspec.convert([_parse(cell) for cell in row], type=Record, strict=False) for row in rows]
    return sorted(records, key=lambda one: one.due)


def _spell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6f}"
    return "null" if value is None else value


def _parse(cell: str) -> str | None:
    return None if cell == "null" else cell
