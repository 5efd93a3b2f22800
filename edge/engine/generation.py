"""
Continuous batching: sequences join and leave while others decode.

A thread of its own runs the model. Prompts are read in pieces of `prefill_tokens`; once so many tokens were read, those
that decode have their next step. So between two steps fewer than twice as many are read, a long prompt cannot hold
running streams up, and a short one is never cut in two. Whoever is cancelled leaves before the next step.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import asdict

from edge.engine.answer import Answer, FinishReason, TokenLogprobs
from edge.engine.decoder import Decoder
from edge.engine.errors import (
    ContextError,
    CrashedError,
    EngineError,
    ExpiredError,
    GrammarError,
    OverloadedError,
    StoppedError,
)
from edge.engine.events import Deliver, Delta, Event, Failure, Finish, Statistics
from edge.engine.grammar import Grammar, Grammars
from edge.engine.sampling import Choice, Logits, Picker, Sampling, pick
from edge.engine.tokens import Tokenizer
from edge.engine.waiting import WaitingList

__all__ = ["Delta", "Event", "Failure", "Finish", "Generation", "Generator", "Statistics"]

_logger = logging.getLogger(__name__)


class _Counts(Struct):
    started: int = 0
    finished: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Generation:
    """One sequence, from its arrival on. Made by `Generator.submit`."""

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
        self.prompt = prompt
        self.limit = limit
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
        self._leave = leave

    def cancel(self) -> None:
        """Give the slot, or the place in the waiting list, back before the next decode step. Safe from any thread.

        An event that is already on its way may still arrive.
        """
        self._leave(self)


class Generator:
    """Owns a decoder and the thread that runs it: `with Generator(...) as generator`."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, *, waiting: int = 64, prefill_tokens: int = 64) -> None:
        """`waiting` bounds those that have no slot yet; `prefill_tokens`: see the module."""
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, decoder.vocabulary, decoder.end_tokens)
        self._most_waiting = waiting
        self._prefill_tokens = prefill_tokens
        self._changed = threading.Condition()
        self._waiting = WaitingList[Generation]()
        self._running: list[Generation] = []  # by slot: those that decode, then at most one that is being prefilled
        self._filling: Generation | None = None
        self._counts = _Counts()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What runs or waits fails with `StoppedError`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether work would be done."""
        return self._thread.is_alive() and not self._stopping

    def prepare(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        """Check a request and compile its grammar, which may take a second; nothing waits or runs yet.

        Args:
            prompt: Token ids, at least one.
            sampling: How to choose tokens.

        Raises:
            ContextError: prompt and `max_tokens` do not fit.
            GrammarError: the schema cannot be followed.
        """
        limit = self._limit(prompt, sampling)
        grammar = self._grammars.compile(sampling.json_schema) if sampling.json_schema is not None else None
        answer = Answer(self._tokenizer, sampling)
        return Generation(prompt, sampling, answer, grammar, limit=limit, leave=self._cancel)

    def begin(
        self, generation: Generation, deliver: Deliver, *, priority: int = 0, deadline: float | None = None
    ) -> None:
        """Let a prepared generation wait for its slot; returns at once.

        Args:
            generation: From `prepare`, begun only once.
            deliver: Gets each event, on the generator's thread; must not block. The last is `Finish` or `Failure`.
            priority: Smaller goes first among those that wait; equals go by arrival.
            deadline: On `time.monotonic()`'s clock; what is not finished by then fails with `ExpiredError`.

        Raises:
            OverloadedError: too many wait.
            StoppedError: the generator does not run.
        """
        generation.deliver = deliver
        generation.deadline = math.inf if deadline is None else deadline
        with self._changed:
            if not self.alive:
                raise StoppedError("the generator does not run")
            free = self._decoder.slots - len(self._running)
            if len(self._waiting) >= self._most_waiting + free:
                raise OverloadedError(f"{len(self._waiting)} generations wait already; try later or raise `waiting`")
            self._waiting.push(generation, priority)
            self._changed.notify()

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        deliver: Deliver,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Generation:
        """`prepare` and `begin`, with the errors of both."""
        generation = self.prepare(prompt, sampling)
        self.begin(generation, deliver, priority=priority, deadline=deadline)
        return generation

    def statistics(self) -> Statistics:
        """A snapshot."""
        with self._changed:
            return Statistics(len(self._running), len(self._waiting), **asdict(self._counts))

    def _limit(self, prompt: Sequence[int], sampling: Sampling) -> int:
        context = self._decoder.context
        room = context - len(prompt)
        if not prompt:
            raise ContextError("the prompt is empty; it needs at least one token")
        if room < 1:
            raise ContextError(f"the prompt has {len(prompt)} tokens and the model's context {context}; shorten it")
        if (sampling.max_tokens or 1) > room:
            raise ContextError(
                f"the prompt's {len(prompt)} tokens and max_tokens {sampling.max_tokens} are more than the model's "
                f"context of {context}; lower max_tokens to {room} or less",
                "max_tokens",
            )
        return sampling.max_tokens or room

    def _cancel(self, generation: Generation) -> None:
        with self._changed:
            if generation.cancelled:
                return
            generation.cancelled = True
            self._counts.cancelled += len(self._waiting.take(lambda one: one is generation))

    def _work(self) -> None:
        while self._wait_work():
            try:
                self._turn()
            except Exception as exc:
                _logger.exception("The model failed under %d generations.", len(self._running))
                self._fail_running(CrashedError(f"the model failed: {' '.join(str(exc).split())}"))
        self._fail_running(StoppedError("the generator stopped before the answer was complete"))
        with self._changed:
            left = self._waiting.take(lambda _: True)
        for generation in left:
            self._fail(generation, StoppedError("the generator stopped before the work began"))

    def _wait_work(self) -> bool:
        if self._running and not self._stopping:
            return True
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._waiting) or self._running)
            return not self._stopping

    def _turn(self) -> None:
        """Let the cancelled and the late leave, take prompts within the budget, decode one step."""
        self._drop_cancelled()
        self._drop_late()
        # while nobody decodes, nobody is held up: a burst of prompts is read together before its first step
        budget = self._prefill_tokens * (1 if self._running else self._decoder.slots)
        if not self._running:
            budget -= self._fill_equal()
        while budget > 0 and (filling := self._filling or self._admit()) and not filling.cancelled:
            budget -= self._fill(filling)
        decoding = self._running[:-1] if self._filling else self._running
        if decoding:
            self._step(list(decoding))

    def _drop_cancelled(self) -> None:
        for generation in [one for one in self._running if one.cancelled]:
            self._remove(generation)
            self._counts.cancelled += 1

    def _drop_late(self) -> None:
        now = time.monotonic()
        late = [one for one in self._running if one.deadline <= now]
        for generation in late:
            self._remove(generation)
        if self._waiting:
            with self._changed:
                late += self._waiting.take(lambda one: one.deadline <= now)
        self._counts.expired += len(late)
        for generation in late:
            self._deliver(generation, Failure(ExpiredError("the deadline passed before the answer was complete")))

    def _admit(self) -> Generation | None:
        with self._changed:
            if not self._waiting or len(self._running) >= self._decoder.slots:
                return None
            generation = self._waiting.pop()
            self._running.append(generation)
            self._filling = generation
            self._counts.started += 1
            return generation

    def _fill_equal(self) -> int:
        """Read short prompts of one length in one run, such as those of the `n` answers to one question.

        Returns how many tokens they have.
        """
        with self._changed:
            first = self._waiting.peek()
            length = len(first.prompt) if first else 0
            while (
                (one := self._waiting.peek())
                and len(one.prompt) == length <= self._prefill_tokens
                and len(self._running) < self._decoder.slots
            ):
                self._running.append(self._waiting.pop())
            self._counts.started += len(self._running)
        if not self._running:
            return 0
        generations = list(self._running)
        logits = self._decoder.prefill_equal([one.prompt for one in generations])
        for generation in generations:
            generation.length = length
        self._counts.prompt_tokens += length * len(generations)
        self._choose(generations, logits)
        return length * len(generations)

    def _fill(self, generation: Generation) -> int:
        """Prefill a piece of a prompt; after the last one the answer has its first token."""
        piece = generation.prompt[generation.length : generation.length + self._prefill_tokens]
        logits = self._decoder.prefill(len(self._running) - 1, piece, generation.length)
        generation.length += len(piece)
        self._counts.prompt_tokens += len(piece)
        if generation.length == len(generation.prompt):
            self._filling = None
            self._choose([generation], logits[None])
        return len(piece)

    def _step(self, decoding: list[Generation]) -> None:
        logits = self._decoder.step([one.token for one in decoding], [one.length for one in decoding])
        for generation in decoding:
            generation.length += 1
        self._choose(decoding, logits)

    def _choose(self, generations: list[Generation], logits: Logits) -> None:
        allowed = [one.grammar.allowed() if one.grammar else None for one in generations]
        choices = pick(logits, [one.picker for one in generations], allowed)
        self._counts.completion_tokens += len(generations)
        for generation, choice in zip(generations, choices, strict=True):
            generation.token = choice.token
            try:
                reason = self._take(generation, choice)
            except GrammarError as exc:
                self._remove(generation)
                self._fail(generation, exc)
                continue
            if reason is not None:
                self._finish(generation, reason)

    def _take(self, generation: Generation, choice: Choice) -> FinishReason | None:
        """Show a token; returns why it was the last, if it was."""
        answer = generation.answer
        complete = generation.grammar.advance(choice.token) if generation.grammar else False
        if choice.token in self._decoder.end_tokens:
            self._show(generation, *answer.finish(end_token=True))
            return FinishReason.STOP
        self._show(generation, *answer.push(choice))
        if not answer.stopped and not complete and answer.tokens < generation.limit:
            return None
        self._show(generation, *answer.finish(end_token=False))
        return FinishReason.STOP if answer.stopped or complete else FinishReason.LENGTH

    def _show(self, generation: Generation, text: str, tokens: tuple[TokenLogprobs, ...]) -> None:
        if text or tokens:
            self._deliver(generation, Delta(text, tokens))

    def _finish(self, generation: Generation, reason: FinishReason) -> None:
        self._remove(generation)
        self._counts.finished += 1
        self._deliver(generation, Finish(reason, len(generation.prompt), generation.answer.tokens))

    def _remove(self, generation: Generation) -> None:
        """Close the gap: the last that decodes moves into it, and the one being prefilled moves up."""
        gap = self._running.index(generation)
        last = len(self._running) - 1
        if generation is self._filling:
            self._filling = None
        elif self._filling is not None:
            self._move(last - 1, gap)
            gap = last - 1
        self._move(last, gap)
        self._running.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            moved = self._running[source]
            self._decoder.move(source, target, moved.length)
            self._running[target] = moved

    def _fail_running(self, error: EngineError) -> None:
        with self._changed:
            failed, self._running, self._filling = self._running, [], None
        for generation in failed:
            self._fail(generation, error)

    def _fail(self, generation: Generation, error: EngineError) -> None:
        self._counts.failed += 1
        self._deliver(generation, Failure(error))

    def _deliver(self, generation: Generation, event: Event) -> None:
        if generation.cancelled:
            return
        try:
            generation.deliver(event)
        except Exception:
            _logger.exception("A generation's receiver failed; cancelling it.")
            self._cancel(generation)


def _ignore(_: Event) -> None:
    """The receiver of a generation that has not begun."""
