"""
What a calibration has paid for so far: an append-only file of JSON lines that survives any end of the process.

Every record is on disk before the next step depends on it. A last line that a crash cut short is dropped when the
journal is opened again. One process at a time owns a journal.
"""

import fcntl
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from router.calibration.errors import CalibrationError
from router.decision import Tier
from router.query import Finish
from router.scoring.dataset import AnswerToken


class Begun(Struct, frozen=True, tag="begun"):
    """The first line: what the rest belongs to."""

    prompts_sha256: str
    edge: str
    cloud: str
    format: Literal["hybrid-calibration-1"] = "hybrid-calibration-1"


class Answered(Struct, frozen=True, tag="answered"):
    """A tier's answer."""

    id: str
    tier: Tier
    text: str
    tokens: list[AnswerToken] = []
    finish: Finish = Finish.STOP


class Judged(Struct, frozen=True, tag="judged"):
    """Both answers' quality in [0, 1], as one judge saw it."""

    id: str
    judge: str
    edge: float
    cloud: float


class Skipped(Struct, frozen=True, tag="skipped"):
    """A question that cannot be used, and why; `judge` is empty when a target refused it."""

    id: str
    reason: str
    judge: str = ""


Record = Answered | Judged | Skipped


class Journal:
    """The records by question, and the file that they are appended to. A context: leaving it closes the file."""

    def __init__(self, path: Path, begun: Begun) -> None:
        """Open or begin a journal.

        Raises:
            CalibrationError: it belongs to other prompts or targets, is owned by another process, or is damaged.
        """
        self.path = path
        self.answers: dict[tuple[str, Tier], Answered] = {}
        self.judgements: dict[tuple[str, str], Judged] = {}
        self.skipped: dict[tuple[str, str], Skipped] = {}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what users wrote
            self._file = path.open("a+b", buffering=0)
        except OSError as exc:
            raise CalibrationError(f"{path}: cannot be opened ({exc.strerror}); give another --work") from exc
        try:
            self._own()
            self._recover(begun)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, record: Record) -> None:
        """Keep a record: it is on disk when this returns."""
        self._write(record)
        self._note(record)

    def skip_reason(self, question: str, judge: str) -> str | None:
        """Why a question is left out, if it is."""
        found = self.skipped.get((question, "")) or self.skipped.get((question, judge))
        return found.reason if found else None

    def _own(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CalibrationError(
                f"{self.path}: another calibration writes it; wait for it or give another --work"
            ) from None

    def _recover(self, begun: Begun) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write(begun)
            return
        self._compare(lines[0], begun)
        decoder = msgspec.json.Decoder(Record)
        for number, line in enumerate(lines[1:], 2):
            try:
                self._note(decoder.decode(line))
            except msgspec.MsgspecError as exc:
                raise CalibrationError(f"{self.path}:{number}: {exc}; it is damaged, remove this line") from exc

    def _compare(self, line: bytes, begun: Begun) -> None:
        try:
            found = msgspec.json.decode(line, type=Begun)
        except msgspec.MsgspecError as exc:
            raise CalibrationError(f"{self.path}: is no journal of a calibration ({exc}); give another --work") from exc
        if found.prompts_sha256 != begun.prompts_sha256:
            raise CalibrationError(
                f"{self.path}: was begun with other prompts (sha256 {found.prompts_sha256[:12]}, now "
                f"{begun.prompts_sha256[:12]}); give the file it was begun with, or another --work"
            )
        if found != begun:
            raise CalibrationError(
                f"{self.path}: was begun with the targets {found.edge} and {found.cloud}, now {begun.edge} and "
                f"{begun.cloud}; give those again, or another --work"
            )

    def _write(self, record: Begun | Record) -> None:
        line = msgspec.json.encode(record) + b"\n"
        try:
            written = self._file.write(line)
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise CalibrationError(f"{self.path}: cannot be written ({exc.strerror}); make room and run again") from exc
        if written < len(line):
            raise CalibrationError(f"{self.path}: its disk is full; make room and run again")

    def _note(self, record: Record) -> None:
        match record:
            case Answered():
                self.answers[record.id, record.tier] = record
            case Judged():
                self.judgements[record.id, record.judge] = record
            case Skipped():
                self.skipped[record.id, record.judge] = record
