"""
How fast a target works, measured: seconds of overhead, prompt tokens read a second, answer tokens written a second.

Means are exponential, and robust: one sample cannot move them by more than its weight times four times the mean
(winsorising; Huber, "Robust Statistics", 1981). Time to the first token is a line over the prompt's length, fitted by
least squares with forgetting.
"""

from msgspec import Struct

_FEWEST = 5
"""So many answers make a target known; before, nothing is predicted."""
_MEMORY = 20
_WEIGHT = 1 / _MEMORY
"""Of a new sample, once there were so many."""
_LINE_MEMORY = 80
_LINE_WEIGHT = 1 / _LINE_MEMORY
"""A line needs a longer memory than a mean."""
_FIT_EVERY = 8
"""Samples, once there are many: one in so many moves the line little, and fitting costs."""
_REACH = 4.0
"""Samples beyond the mean times this, or below it over this, count as if there."""


class Work(Struct, frozen=True, gc=False):
    """What a request takes, or took, of a target."""

    prompt_tokens: float
    completion_tokens: float

    @property
    def tokens(self) -> float:
        """All."""
        return self.prompt_tokens + self.completion_tokens


class Sample(Struct, frozen=True, gc=False):
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
        count = self.count = self.count + 1
        value = self.value
        if count > _FEWEST:
            sample = _clip(sample, value)
        self.value = value + (sample - value) * (1.0 / count if count < _MEMORY else _WEIGHT)


class FirstToken:
    """Seconds to the first token as a line over prompt tokens, both coefficients >= 0."""

    __slots__ = ("_count", "_covariance", "_prompt_tokens", "_seconds", "_variance", "intercept_s", "slope_s")

    def __init__(self) -> None:
        self._count = 0
        self._prompt_tokens = 0.0
        self._seconds = 0.0
        self._variance = 0.0
        self._covariance = 0.0
        self.intercept_s = 0.0
        self.slope_s = 0.0

    def add(self, prompt_tokens: float, first_s: float) -> None:
        """One more."""
        self._count += 1
        if self._count > _FEWEST:
            first_s = _clip(first_s, self.intercept_s + self.slope_s * prompt_tokens)
        weight = 1.0 / self._count if self._count < _LINE_MEMORY else _LINE_WEIGHT
        longer = prompt_tokens - self._prompt_tokens
        later = first_s - self._seconds
        self._prompt_tokens += weight * longer
        self._seconds += weight * later
        self._variance = (1 - weight) * (self._variance + weight * longer * longer)
        self._covariance = (1 - weight) * (self._covariance + weight * longer * later)
        if self._count <= _LINE_MEMORY or not self._count % _FIT_EVERY:
            self._fit()

    def predict(self, prompt_tokens: float) -> float:
        """Seconds."""
        return self.intercept_s + self.slope_s * prompt_tokens

    def _fit(self) -> None:
        x, y = self._prompt_tokens, self._seconds
        # lengths without spread are one point, and say nothing of a slope
        slope = self._covariance / self._variance if self._variance > 1e-6 * x * x else 0.0
        if slope < 0:
            slope = 0.0
        elif slope * x > y:
            slope = y / x
        self.slope_s = slope
        self.intercept_s = max(y - slope * x, 0.0)  # a rounding may be below


class Rates:
    """What is known of one target."""

    def __init__(self) -> None:
        self._first = FirstToken()
        self._decode = Mean()
        self._service = Mean()
        self.known = False
        """Whether enough was measured to predict."""

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
        work, first_s = sample.work, sample.first_s
        self._service.add(sample.service_s)
        self.known = self._service.count >= _FEWEST
        if first_s is not None:
            self._first.add(work.prompt_tokens, first_s)
        else:
            first_s = self._first.predict(work.prompt_tokens)
        if work.completion_tokens >= 1:
            self._decode.add(max(sample.service_s - first_s, 0.0) / work.completion_tokens)

    def predict_first(self, work: Work) -> float:
        """Seconds in a slot until the first token; 0 while nothing is known."""
        return self._first.predict(work.prompt_tokens) if self.known else 0.0

    def predict(self, work: Work) -> float:
        """Seconds in a slot; 0 while nothing is known."""
        if not self.known:
            return 0.0
        first = self._first
        return first.intercept_s + first.slope_s * work.prompt_tokens + self._decode.value * work.completion_tokens


def _clip(sample: float, mean: float) -> float:
    """No farther from the mean than one sample may reach."""
    if sample > mean * _REACH:
        return mean * _REACH
    if sample < mean / _REACH:
        return mean / _REACH
    return sample
