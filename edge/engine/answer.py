"""What becomes of one sequence's tokens: text without stop strings, tokens that belong to it, the reason of its end."""

from collections import deque
from enum import StrEnum

from msgspec import Struct

from edge.engine.sampling import Choice, Sampling, Score
from edge.engine.tokens import StopMatcher, Tokenizer, Utf8Stream


class FinishReason(StrEnum):
    """Why an answer ended: by itself (or at a stop string), or at its limit."""

    STOP = "stop"
    LENGTH = "length"


class Candidate(Struct, frozen=True):
    """A token and its natural-log probability; `rank` 1 is the likeliest of the vocabulary."""

    token: int
    raw: bytes
    logprob: float
    rank: int

    @property
    def text(self) -> str:
        """The token alone; what is no UTF-8 reads as U+FFFD."""
        return self.raw.decode(errors="replace")


class TokenLogprobs(Struct, frozen=True):
    """The chosen token at a place, and the likeliest ones there, likeliest first."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


class Answer:
    """Collects one sequence's tokens. `push` and `finish` return what may be shown now."""

    def __init__(self, tokenizer: Tokenizer, sampling: Sampling) -> None:
        self.tokens = 0
        self._tokenizer = tokenizer
        self._utf8 = Utf8Stream()
        self._stop = StopMatcher(sampling.stop)
        self._read = 0  # characters so far
        self._shown = 0
        self._waiting: deque[tuple[int, TokenLogprobs]] = deque()

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stop.stopped

    def push(self, choice: Choice) -> tuple[str, tuple[TokenLogprobs, ...]]:
        """Take the next token."""
        self.tokens += 1
        text = self._utf8.push(self._tokenizer.token_bytes(choice.token))
        if choice.score is None:
            return self._stop.push(text), ()
        top = tuple(self._candidate(score) for score in choice.top)
        self._waiting.append((self._read, TokenLogprobs(self._candidate(choice.score), top)))
        self._read += len(text)
        return self._show(self._stop.push(text))

    def finish(self, *, end_token: bool) -> tuple[str, tuple[TokenLogprobs, ...]]:
        """No token follows. `end_token`: the model's own end was generated; it counts, but is not shown."""
        self.tokens += end_token
        if self.stopped:
            return "", ()
        text = self._stop.push(self._utf8.flush())
        text, tokens = self._show(text + self._stop.flush())
        if not self.stopped:  # also tokens without text
            tokens += tuple(token for _, token in self._waiting)
            self._waiting.clear()
        return text, tokens

    def _show(self, text: str) -> tuple[str, tuple[TokenLogprobs, ...]]:
        """Tokens go out with their first character."""
        self._shown += len(text)
        shown = []
        while self._waiting and self._waiting[0][0] < self._shown:
            shown.append(self._waiting.popleft()[1])
        return text, tuple(shown)

    def _candidate(self, score: Score) -> Candidate:
        return Candidate(score.token, self._tokenizer.token_bytes(score.token), score.logprob, score.rank)
