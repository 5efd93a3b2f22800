"""What a target answered, whole or begun: as the check reads it, and as the client gets it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from router.hold import count_tokens
from router.query import Completion, Delta, Parameters, TokenLogprob, Usage
from router.scoring import EdgeAnswer


class Reply(Protocol):
    """What a call brought so far."""

    @property
    def complete(self) -> bool:
        """Whether it is all here and nothing runs any more."""
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

    def __aiter__(self) -> AsyncIterator[Delta]: ...

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
        """As the target counts, once it did; till then the pieces' tokens, without the prompt's."""
        counted = next((piece.usage for piece in self.pieces if piece.usage), None)
        return counted or Usage(0, sum(map(count_tokens, self.pieces)))

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


def _asked(logprobs: Sequence[TokenLogprob], asked: Parameters) -> tuple[TokenLogprob, ...]:
    """What the client asked for of what the check was given."""
    if not asked.logprobs:
        return ()
    return tuple(replace(place, top=place.top[: asked.top_logprobs]) for place in logprobs)
