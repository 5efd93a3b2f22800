"""What was flushed, remembered: so that a record on its way, or in a tier that was away, does not come back."""

from collections.abc import Iterator
from itertools import product
from math import inf
from threading import Lock
from typing import Final

from router.cache import Flush, Record, Selector
from router.cache.sealing import Head

MOST_FLUSHES: Final = 1024
_AHEAD_S: Final = 60.0
_Fields = tuple[str | None, str | None, str | None]
_ALL: Final[_Fields] = (None, None, None)


class Flushes:
    """The newest flush of each selector, at most `most` of them; more become one flush of all, at the newest's time.

    That kills more than was asked for, never less.
    """

    def __init__(self, most: int = MOST_FLUSHES) -> None:
        self._most = most
        self._at: dict[_Fields, float] = {}
        self._newest = -inf
        self._lock = Lock()  # a tier remembers some on a thread of its own

    def add(self, flush: Flush) -> bool:
        """Remember it; returns whether it kills anything that the others do not."""
        fields = _read_fields(flush)
        with self._lock:
            if flush.at <= max(self._at.get(fields, -inf), self._at.get(_ALL, -inf)):
                return False
            self._newest = max(self._newest, flush.at)
            self._at[fields] = flush.at
            if fields == _ALL:
                self._at = {other: at for other, at in self._at.items() if at >= flush.at}
            if len(self._at) > self._most:
                self._at = {_ALL: self._newest}
            return True

    def learn(self, flush: Flush, now: float) -> bool:
        """`add` for one that came from elsewhere: a clock far ahead must not kill what will be stored for days."""
        return self.add(flush if flush.at <= now + _AHEAD_S else Flush(flush.selector, now))

    def kill(self, record: Record | Head) -> bool:
        """Whether one of them killed it. Takes the same time however many there are."""
        if record.stored_at > self._newest:
            return False
        candidates = product((None, record.tenant), (None, record.model), (None, *record.tags))
        return any(record.stored_at <= self._at.get(fields, -inf) for fields in candidates)

    def discard(self, flush: Flush) -> None:
        """Forget just this one, if no newer took its place."""
        fields = _read_fields(flush)
        with self._lock:
            if self._at.get(fields) == flush.at:
                del self._at[fields]

    def __iter__(self) -> Iterator[Flush]:
        with self._lock:
            return iter([Flush(Selector(*fields), at) for fields, at in self._at.items()])

    def __len__(self) -> int:
        return len(self._at)


def _read_fields(flush: Flush) -> _Fields:
    return flush.selector.tenant, flush.selector.model, flush.selector.tag
