"""A stored answer, and its two ways to a client: whole, or replayed as a stream."""

import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct, field

from router.decision import Decision, Evidence, Reason, Score, Target, Tier
from router.query import Choice, Completion, Delta, Finish, TokenLogprob, Usage

_PIECE = re.compile(r"\s*\S{1,64}|\s+")
_WORDS_A_PIECE: Final = 4


class Stamp(Struct, frozen=True):
    """What names an answer: the same for everyone who gets it, now and later. `created` is in Unix seconds.

    The id protects nothing, so it need not come from the kernel, which takes up to 40 us.
    """

    answer_id: str = field(default_factory=lambda: f"{random.getrandbits(96):024x}")
    created: int = field(default_factory=lambda: int(time.time()))


class Entry(Struct, frozen=True, array_like=True):
    """An answer with its origin, as a record's value."""

    answer_id: str
    created: int
    choices: tuple[Choice, ...]
    usage: Usage
    target: str
    tier: Tier
    reason: Reason
    threshold: float
    score: float | None
    evidence: Evidence

    @property
    def stamp(self) -> Stamp:
        """The answer's name."""
        return Stamp(self.answer_id, self.created)

    @property
    def completion(self) -> Completion:
        """The answer."""
        return Completion(self.choices, self.usage)

    @property
    def decision(self) -> Decision:
        """The decision that led to it."""
        score = None if self.score is None else Score(self.score, self.evidence)
        return Decision(Target(self.target, self.tier), self.reason, self.threshold, score)


class EntryCodec:
    """Entries as bytes."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Entry).decode

    def encode(self, entry: Entry) -> bytes:
        """As a record's value."""
        return self._encode(entry)

    def decode(self, value: bytes) -> Entry | None:
        """None for what is no entry."""
        try:
            return self._decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def make_entry(completion: Completion, decision: Decision, stamp: Stamp) -> Entry:
    """What is kept of an answer."""
    score = decision.score
    return Entry(
        stamp.answer_id,
        stamp.created,
        tuple(completion.choices),
        completion.usage,
        decision.target.name,
        decision.tier,
        decision.reason,
        decision.threshold,
        score.value if score else None,
        score.evidence if score else Evidence.NONE,
    )


def assemble(deltas: Sequence[Delta]) -> Completion | None:
    """The answer that a stream's pieces make; None when one has no end."""
    texts: dict[int, list[str]] = {}
    logprobs: dict[int, list[TokenLogprob]] = {}
    finishes: dict[int, Finish] = {}
    usage = Usage()
    for delta in deltas:
        usage = delta.usage or usage
        if delta.usage is not None and not (delta.text or delta.finish or delta.logprobs):
            continue
        texts.setdefault(delta.index, []).append(delta.text)
        logprobs.setdefault(delta.index, []).extend(delta.logprobs)
        if delta.finish is not None:
            finishes[delta.index] = delta.finish
    if not texts or finishes.keys() != texts.keys():
        return None
    choices = [Choice("".join(texts[i]), finishes[i], tuple(logprobs[i])) for i in sorted(texts)]
    return Completion(choices, usage)


def replay(completion: Completion) -> Iterator[Delta]:
    """The pieces of a stream that makes this answer, token by token where its tokens are known."""
    for index, choice in enumerate(completion.choices):
        yield from _pieces(index, choice)
        yield Delta(index, finish=choice.finish)
    yield Delta(0, usage=completion.usage)


def _pieces(index: int, choice: Choice) -> Iterator[Delta]:
    if not choice.logprobs:
        words = _PIECE.findall(choice.text)
        for start in range(0, len(words), _WORDS_A_PIECE):
            yield Delta(index, "".join(words[start : start + _WORDS_A_PIECE]))
    elif "".join(place.token for place in choice.logprobs) == choice.text:
        for place in choice.logprobs:
            yield Delta(index, place.token, (place,))
    else:  # a token may be part of a character, or special: its share of the text is not known
        yield Delta(index, choice.text, choice.logprobs)
