"""Open-loop traffic: who asks for what, when, and how long it is of use."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.query import Priority
from router.rates import Work
from router.tickets import Demand

Floats = NDArray[np.float64]
_CLASSES = tuple(Priority)
_CHUNK = 20_000


class Arrival(Demand, frozen=True, gc=False, kw_only=True):
    """A demand (whose work is an estimate), the work that it turns out to be, its time, place in the trace, score."""

    at: float
    actual: Work
    number: int
    score: float = 0.5


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal token counts, by mean and coefficient of variation."""

    mean: float
    variation: float = 0.5

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Whole tokens, at least one."""
        spread = np.sqrt(np.log1p(self.variation**2))
        drawn: Floats = rng.lognormal(np.log(self.mean) - spread**2 / 2, spread, count)
        return np.maximum(np.round(drawn), 1.0)


@dataclass(frozen=True, slots=True)
class Stream:
    """One tenant's traffic of one class. `burst` requests come together; `patience_s` is until the deadline."""

    priority: Priority
    tenant: str
    per_s: float
    prompt: Lengths
    completion: Lengths
    patience_s: float
    burst: float = 1.0
    steps: Mapping[float, float] = field(default_factory=dict)
    """From these seconds on, so many times `per_s`."""

    def times(self, rng: np.random.Generator, duration_s: float) -> Floats:
        """A Poisson stream of bursts of geometric size, by thinning."""
        most = max([1.0, *self.steps.values()])
        bursts = rng.poisson(self.per_s * most / self.burst * duration_s)
        starts = np.sort(rng.uniform(0.0, duration_s, bursts))
        levels = np.ones(bursts)
        for since, level in sorted(self.steps.items()):
            levels[starts >= since] = level
        starts = starts[rng.uniform(size=bursts) * most < levels]
        if self.burst == 1.0:
            return starts
        return np.sort(np.repeat(starts, rng.geometric(1 / self.burst, len(starts))))


@dataclass(frozen=True, slots=True)
class Trace:
    """Columns, in the order of time; one row a request."""

    at: Floats
    stream: NDArray[np.int64]
    prompt: Floats
    completion: Floats
    estimate: Floats
    score: Floats
    streams: Sequence[Stream]

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def draw(cls, streams: Sequence[Stream], duration_s: float, seed: int, *, doubt: float = 0.0) -> "Trace":
        """
        Args:
            streams: What to mix.
            duration_s: Of the arrivals.
            seed: Of everything.
            doubt: Standard deviation, in logarithms, of the estimated answer's length around the true one.
        """
        rng = np.random.default_rng(seed)
        times = [stream.times(rng, duration_s) for stream in streams]
        at = np.concatenate(times)
        order = np.argsort(at, kind="stable")
        prompt = np.concatenate([s.prompt.draw(rng, len(t)) for s, t in zip(streams, times, strict=True)])
        completion = np.concatenate([s.completion.draw(rng, len(t)) for s, t in zip(streams, times, strict=True)])
        which = np.repeat(np.arange(len(streams)), [len(t) for t in times])
        estimate = completion * np.exp(rng.normal(0.0, doubt, len(at))) if doubt else completion
        return cls(
            at[order],
            which[order],
            prompt[order],
            completion[order],
            estimate[order],
            rng.uniform(size=len(at)),
            streams,
        )

    def ranks(self) -> NDArray[np.int64]:
        """Each request's class, 0 for the most urgent."""
        return np.array([_CLASSES.index(s.priority) for s in self.streams])[self.stream]

    def arrivals(self) -> Iterator[Arrival]:
        """One by one."""
        streams = [(s.priority, s.tenant, s.patience_s) for s in self.streams]
        for low in range(0, len(self), _CHUNK):
            part = slice(low, low + _CHUNK)
            rows = zip(
                self.at[part].tolist(),
                self.stream[part].tolist(),
                self.prompt[part].tolist(),
                self.completion[part].tolist(),
                self.estimate[part].tolist(),
                self.score[part].tolist(),
                strict=True,
            )
            for number, (at, which, prompt, completion, estimate, score) in enumerate(rows, low):
                priority, tenant, patience_s = streams[which]
                actual = Work(prompt, completion)
                work = actual if estimate == completion else Work(prompt, estimate)
                yield Arrival(priority, tenant, work, at + patience_s, at=at, actual=actual, number=number, score=score)
