"""
Continuous batching: sequences join and leave while others decode.

A thread of its own runs the model. Prompts are read in pieces of `prefill_tokens`; once so many tokens were read, those
that decode have their next step. So between two steps fewer than twice as many are read, a long prompt cannot hold
running streams up, and a short one is never cut in two.

Before every run of the model whoever was cancelled leaves, and so does whoever is late, waiting or running. A slot is
given by the clock that was read for it, so nothing starts after its deadline (`Statistics.started_late` counts it).
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import asdict

from edge.engine.answer import Answer
from edge.engine.batch import Batch
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
from edge.engine.events import Deliver, Failure, Finish, Statistics
from edge.engine.generation import Generation
from edge.engine.grammar import Grammars
from edge.engine.sampling import Logits, Sampling, pick
from edge.engine.tokens import Tokenizer
from edge.engine.waiting import WaitingList

_logger = logging.getLogger(__name__)


class _Counts(Struct):
    started: int = 0
    started_late: int = 0
    finished: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


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
        self._batch = Batch(decoder)  # only its length is read from other threads
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
            priority: Smaller goes first among those that wait; equals go by deadline, then by arrival.
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
            if generation.cancelled:
                self._counts.cancelled += 1
                return
            if len(self._waiting) >= self._most_waiting + self._batch.free:
                raise OverloadedError(f"{len(self._waiting)} generations wait already; try later or raise `waiting`")
            self._waiting.push(generation, priority, generation.deadline)
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
            return Statistics(len(self._batch.running), len(self._waiting), **asdict(self._counts))

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
            if not generation.cancelled:
                generation.cancelled = True
                self._counts.cancelled += self._waiting.discard(generation)

    def _work(self) -> None:
        while self._wait_work():
            try:
                self._turn()
            except Exception as exc:
                _logger.exception("The model failed under %d generations.", len(self._batch.running))
                self._fail_running(CrashedError(f"the model failed: {' '.join(str(exc).split())}"))
        self._fail_running(StoppedError("the generator stopped before the answer was complete"))
        with self._changed:
            left = self._waiting.clear()
        for generation in left:
            self._fail(generation, StoppedError("the generator stopped before the work began"))

    def _wait_work(self) -> bool:
        if self._batch.running and not self._stopping:
            return True
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._waiting) or self._batch.running)
            return not self._stopping

    def _turn(self) -> None:
        """Take prompts within the budget, decode one step; before each the cancelled and the late leave."""
        self._drop()
        # while nobody decodes, nobody is held up: a burst of prompts is read together before its first step
        budget = self._prefill_tokens * (1 if self._batch.running else self._decoder.slots)
        if not self._batch.running:
            budget -= self._fill_equal()
        while budget > 0 and (filling := self._batch.filling or next(iter(self._start(1)), None)):
            budget -= self._fill(filling)
            self._drop()
        if decoding := self._batch.decoding:
            self._choose(decoding, self._batch.step(decoding))

    def _drop(self) -> None:
        """Let those go who were cancelled, or whose deadline has passed."""
        now = time.monotonic()
        cancelled = [one for one in self._batch.running if one.cancelled]
        for generation in cancelled:
            self._batch.remove(generation)
        late = [one for one in self._batch.running if one.deadline <= now]
        for generation in late:
            self._batch.remove(generation)
        if cancelled or late or self._waiting:
            with self._changed:
                self._counts.cancelled += len(cancelled)
                late += self._waiting.expire(now)
                self._counts.expired += len(late)
            _tell_late(late)

    def _start(self, most: int, longest: float = math.inf) -> list[Generation]:
        """Give slots to the next that waits, and to those behind it whose prompts have the same length.

        `most` of them, and none with more than `longest` prompt tokens. The late leave first: nothing else may start.
        """
        if not self._waiting or not self._batch.free:
            return []
        started: list[Generation] = []
        with self._changed:
            now = time.monotonic()
            late = self._waiting.expire(now)
            while len(started) < most and (one := self._waiting.peek()) and len(one.prompt) <= longest:
                if started and len(one.prompt) != len(started[0].prompt):
                    break
                started.append(self._waiting.pop())
            self._batch.add(started)
            self._counts.expired += len(late)
            self._counts.started += len(started)
            self._counts.started_late += sum(one.deadline <= now for one in started)
        _tell_late(late)
        return started

    def _fill_equal(self) -> int:
        """Read short prompts of one length in one run, such as those of the `n` answers to one question.

        Returns how many tokens they have.
        """
        if not (started := self._start(self._batch.free, self._prefill_tokens)):
            return 0
        logits = self._batch.fill_equal()
        tokens = len(started) * len(started[0].prompt)
        self._counts.prompt_tokens += tokens
        self._choose(started, logits)
        return tokens

    def _fill(self, generation: Generation) -> int:
        """Prefill a piece of a prompt; after the last one the answer has its first token. Returns how many."""
        tokens, logits = self._batch.fill(generation, self._prefill_tokens)
        self._counts.prompt_tokens += tokens
        if generation.length == len(generation.prompt):
            self._choose([generation], logits[None])
        return tokens

    def _choose(self, generations: Sequence[Generation], logits: Logits) -> None:
        allowed = [one.grammar.allowed() if one.grammar else None for one in generations]
        choices = pick(logits, [one.picker for one in generations], allowed)
        self._counts.completion_tokens += len(generations)
        for generation, choice in zip(generations, choices, strict=True):
            try:
                reason = generation.take(choice, self._decoder.end_tokens)
            except GrammarError as exc:
                self._batch.remove(generation)
                self._fail(generation, exc)
                continue
            if reason is not None:
                self._batch.remove(generation)
                self._counts.finished += 1
                generation.tell(Finish(reason, len(generation.prompt), generation.answer.tokens))

    def _fail_running(self, error: EngineError) -> None:
        with self._changed:
            failed = self._batch.clear()
        for generation in failed:
            self._fail(generation, error)

    def _fail(self, generation: Generation, error: EngineError) -> None:
        self._counts.failed += 1
        generation.tell(Failure(error))


def _tell_late(generations: Sequence[Generation]) -> None:
    for generation in generations:
        generation.tell(Failure(ExpiredError("the deadline passed before the answer was complete")))
