"""Receives a generation's events in a test."""

import queue

from edge.engine.events import Delta, Event, Failure, Finish

_LIMIT_S = 20.0


class Receiver:
    """Give it to `Generator.submit` as `deliver`."""

    def __init__(self) -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self.deltas: list[Delta] = []

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def next(self) -> Event:
        """The next event; an error if none comes."""
        event = self._events.get(timeout=_LIMIT_S)
        if isinstance(event, Delta):
            self.deltas.append(event)
        return event

    @property
    def unread(self) -> int:
        """How many events came since the last `next`."""
        return self._events.qsize()

    def end(self) -> Finish | Failure:
        """The last event, after all deltas."""
        while isinstance(event := self.next(), Delta):
            pass
        return event

    def finish(self) -> Finish:
        """The last event, which must be a success."""
        event = self.end()
        assert isinstance(event, Finish), event
        return event

    @property
    def text(self) -> str:
        """All deltas' text."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def tokens(self) -> list[int]:
        """The ids of tokens that came with logprobs."""
        return [token.chosen.token for delta in self.deltas for token in delta.tokens]
