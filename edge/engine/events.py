"""What a generation tells its asker, and a generator its operator."""

from collections.abc import Callable

from msgspec import Struct

from edge.engine.answer import FinishReason, TokenLogprobs
from edge.engine.errors import EngineError


class Delta(Struct, frozen=True, gc=False):
    """A piece of an answer. `tokens` only if logprobs were asked for; either may be empty, not both."""

    text: str
    tokens: tuple[TokenLogprobs, ...] = ()


class Finish(Struct, frozen=True):
    """The answer is complete."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Failure(Struct, frozen=True):
    """There will be no more of this answer."""

    error: EngineError


Event = Delta | Finish | Failure
Deliver = Callable[[Event], None]


class Statistics(Struct, frozen=True):
    """Sequences now (`active`, `waiting`), and since the start; `expired` and `cancelled` also while they waited."""

    active: int
    waiting: int
    started: int
    started_late: int
    """Got a slot after their deadline: always 0, and here to be checked."""
    finished: int
    cancelled: int
    expired: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
