"""One sequence, from its arrival to its last token."""

import logging
import math
from collections.abc import Callable, Collection, Sequence

from edge.engine.answer import Answer, FinishReason, TokenLogprobs
from edge.engine.events import Deliver, Delta, Event
from edge.engine.grammar import Grammar
from edge.engine.sampling import Choice, Picker, Sampling

_logger = logging.getLogger(__name__)


class Generation:
    """Made by `Generator.prepare`; from `Generator.begin` on, only the generator's thread changes it."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        answer: Answer,
        grammar: Grammar | None,
        *,
        limit: int,
        leave: Callable[["Generation"], None],
    ) -> None:
        """`limit` bounds the answer's tokens; `leave` is told of a `cancel`."""
        self.prompt = prompt
        self.deadline = math.inf
        self.deliver: Deliver = _ignore
        self.answer = answer
        self.grammar = grammar
        self.picker = Picker(sampling)
        self.cancelled = False
        self.length = 0
        """Positions in the cache."""
        self.token = 0
        """The last one chosen, not yet in the cache."""
        self._limit = limit
        self._leave = leave

    def cancel(self) -> None:
        """Give the slot, or the place in the waiting list, back before the next decode step. Safe from any thread.

        An event that is already on its way may still arrive.
        """
        self._leave(self)

    def take(self, choice: Choice, end_tokens: Collection[int]) -> FinishReason | None:
        """Show a token; returns why it was the last, if it was.

        Raises:
            GrammarError: the schema cannot be followed any further.
        """
        self.token = choice.token
        answer = self.answer
        complete = self.grammar.advance(choice.token) if self.grammar else False
        if choice.token in end_tokens:
            self._show(*answer.finish(end_token=True))
            return FinishReason.STOP
        self._show(*answer.push(choice))
        if not answer.stopped and not complete and answer.tokens < self._limit:
            return None
        self._show(*answer.finish(end_token=False))
        return FinishReason.STOP if answer.stopped or complete else FinishReason.LENGTH

    def tell(self, event: Event) -> None:
        """Deliver an event, unless its asker has left; one that cannot take it leaves."""
        if self.cancelled:
            return
        try:
            self.deliver(event)
        except Exception:
            _logger.exception("A generation's receiver failed; cancelling it.")
            self.cancel()

    def _show(self, text: str, tokens: tuple[TokenLogprobs, ...]) -> None:
        if text or tokens:
            self.tell(Delta(text, tokens))


def _ignore(_: Event) -> None:
    """The receiver of a generation that has not begun."""
