"""
One call of a target, whole or begun: asked, paid for, and made fit for the client.

While an answer is on trial it is asked for with log-probabilities and a stream is held back; what the client did not
ask for is taken out again.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from router.backends import Backend
from router.errors import OverloadedError, RefusedError, UnavailableError
from router.decision import Decision
from router.hold import Deltas, Holder, count_tokens
from router.policy import Reservation
from router.query import Completion, Conversation, Delta, Parameters, Query, TokenLogprob, Usage
from router.scoring import EdgeAnswer

EVIDENCE_TOP: Final = 5
"""How many of the likeliest tokens the check looks at."""


class Reply(Protocol):
    """What a call brought so far."""

    @property
    def complete(self) -> bool:
        """Whether nothing more will be said."""
        ...

    @property
    def spent(self) -> Usage:
        """The tokens that it took, as far as is known."""
        ...

    def said(self) -> EdgeAnswer:
        """What the check judges."""
        ...

    async def aclose(self) -> None:
        """Nobody wants more of it: cancel what still runs."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    completion: Completion
    asked: Parameters
    complete = True

    @property
    def spent(self) -> Usage:
        """As the target counts."""
        return self.completion.usage

    def said(self) -> EdgeAnswer:
        """The first choice."""
        choice = self.completion.choices[0]
        return EdgeAnswer(choice.text, tuple(choice.logprobs), choice.finish)

    def for_client(self) -> Completion:
        """What was asked for."""
        choices = [replace(one, logprobs=_asked(one.logprobs, self.asked)) for one in self.completion.choices]
        return replace(self.completion, choices=choices)

    async def aclose(self) -> None:
        """Nothing runs any more."""


class Stream(Protocol):
    """Pieces still to come."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Delta: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Opening:
    """The first pieces of a stream, and the rest of it: what fails from here on fails inside the stream."""

    pieces: Sequence[Delta]
    rest: Stream
    asked: Parameters
    complete: bool = False

    @property
    def spent(self) -> Usage:
        """Those of the first pieces; the prompt's are not known yet."""
        return Usage(0, sum(map(count_tokens, self.pieces)))

    def said(self) -> EdgeAnswer:
        """The beginning of the answer, or all of it."""
        finish = next((piece.finish for piece in self.pieces if piece.finish), None)
        logprobs = tuple(place for piece in self.pieces for place in piece.logprobs)
        return EdgeAnswer("".join(piece.text for piece in self.pieces), logprobs, finish)

    async def for_client(self) -> AsyncGenerator[Delta, None]:
        """All pieces, with what was asked for."""
        for piece in self.pieces:
            if (cut := self._cut(piece)) is not None:
                yield cut
        async for piece in self.rest:
            if (cut := self._cut(piece)) is not None:
                yield cut

    async def aclose(self) -> None:
        """Cancel the work at the target."""
        await self.rest.aclose()

    def _cut(self, piece: Delta) -> Delta | None:
        if not piece.logprobs:
            return piece
        cut = replace(piece, logprobs=_asked(piece.logprobs, self.asked))
        return cut if cut.text or cut.logprobs or cut.finish or cut.usage else None


class Caller:
    """Calls targets. A cancelled call, or a closed opening, cancels the work at the target.

    Every method raises `BackendError` or `OverloadedError`, and nothing else.
    """

    def __init__(self, backends: Mapping[str, Backend], holder: Holder) -> None:
        self._backends = backends
        self._holder = holder
        self._mute: set[str] = set()  # targets that refuse to give log-probabilities

    async def complete(self, decision: Decision, reservation: Reservation, query: Query) -> Whole:
        """The whole answer."""
        backend = self._backends[decision.target.name]
        with paying(reservation) as bill:
            if self._wants_evidence(decision):
                with self._muting(decision):
                    completion = await backend.complete(with_evidence(reservation.query))
            completion = await backend.complete(reservation.query)
            bill.note(completion.usage)
        return Whole(completion, query.parameters)
