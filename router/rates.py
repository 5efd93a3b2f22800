"""
How fast a target works, measured: seconds of overhead, prompt tokens read a second, answer tokens written a second.

Means are exponential, and robust: one sample cannot move them by more than its weight times four times the mean
(winsorising; Huber, "Robust Statistics", 1981). Time to the first token is a line over the prompt's length, fitted by
least squares with forgetting.
"""

from dataclasses import dataclass

_FEWEST = 5
"""So many answers make a target known; before, nothing is predicted."""
_WEIGHT = 0.05
"""Of a new sample, once there were as many as its inverse."""
_REACH = 4.0
"""Samples beyond the mean times this, or below it over this, count as if there."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request takes, or took, of a target."""

    prompt_tokens: float
    completion_tokens: float

    @property
    def tokens(self) -> float:
        """All."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer that came to its end: seconds in its slot, and until its first token if that was seen."""

    work: Work
    service_s: float
    first_s: float | None = None


class Mean:
    """A robust exponential mean; exact while there are few samples."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, sample: float) -> None:
        """One more, >= 0."""
        self.count += 1
        value = self.value
        if self.count > _FEWEST:
            sample = min(max(sample, value / _REACH), value * _REACH)
        self.value = value + max(1.0 / self.count, _WEIGHT) * (sample - value)


class FirstToken:
    """Seconds to the first token as a line over prompt tokens, both coefficients >= 0."""

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "intercept_s", "slope_s")

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self.intercept_s = 0.0
        self.slope_s = 0.0

    def add(self, prompt_tokens: float, first_s: float) -> None:
        """One more."""
        if self._n > _FEWEST:
            expected = self.predict(prompt_tokens)
            first_s = min(max(first_s, expected / _REACH), expected * _REACH)
        keep = 1 - _WEIGHT / 4  # a line needs a longer memory than a mean
        self._n = keep * self._n + 1
        self._x = keep * self._x + prompt_tokens
        self._y = keep * self._y + first_s
        self._xx = keep * self._xx + prompt_tokens * prompt_tokens
        self._xy = keep * self._xy + prompt_tokens * first_s
        self._fit()

    def predict(self, prompt_tokens: float) -> float:
        """Seconds."""
        return self.intercept_s + self.slope_s * prompt_tokens

    def _fit(self) -> None:
        n, x, y = self._n, self._x, self._y
        spread = n * self._xx - x * x
        # without spread of lengths there is only one point on the line
        slope = max((n * self._xy - x * y) / spread, 0.0) if spread > 1e-6 * x * x else 0.0
        intercept = (y - slope * x) / n
        if intercept < 0:
            intercept, slope = 0.0, y / x
        self.intercept_s, self.slope_s = intercept, slope


class Rates:
    """What is known of one target."""

    def __init__(self) -> None:
        self._first = FirstToken()
        self._decode = Mean()
        self._service = Mean()

    @property
    def known(self) -> bool:
        """Whether enough was measured to predict."""
        return self._service.count >= _FEWEST

    @property
    def service_s(self) -> float:
        """Of a mean request."""
        return self._service.value

    @property
    def overhead_s(self) -> float:
        """Per request, whatever its length."""
        return self._first.intercept_s

    @property
    def prefill_s(self) -> float:
        """Per prompt token."""
        return self._first.slope_s

    @property
    def decode_s(self) -> float:
        """Per answer token."""
        return self._decode.value

    def add(self, sample: Sample) -> None:
        """Learn; an answer that was not streamed shows no first token and teaches decoding only."""
        self._service.add(sample.service_s)
        first_s = sample.first_s
        if first_s is not None:
            self._first.add(sample.work.prompt_tokens, first_s)
        else:
            first_s = min(self._first.predict(sample.work.prompt_tokens), sample.service_s)
        if sample.work.completion_tokens > 0:
            self._decode.add(max(sample.service_s - first_s, 0.0) / sample.work.completion_tokens)

    def predict_first(self, work: Work) -> float:
        """Seconds in a slot until the first token; 0 while nothing is known."""
        return self._first.predict(work.prompt_tokens) if self.known else 0.0

    def predict(self, work: Work) -> float:
        """Seconds in a slot; 0 while nothing is known."""
        if not self.known:
            return 0.0
        return self._first.predict(work.prompt_tokens) + self._decode.value * work.completion_tokens
