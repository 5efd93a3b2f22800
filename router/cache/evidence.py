"""
How sure it is that a share lies above a bound, when one looks after every single observation.

`Evidence` is an e-process: under any share p <= `bound` its expected value never exceeds 1, so by Ville's inequality
(1939) the chance that it *ever* reaches 1/alpha is at most alpha, however often one looks and whenever one stops. It is
the mixture of likelihood ratios against the bound over larger shares (the method of mixtures, Robbins 1970; e-values
and safe tests: Ramdas, Grünwald, Vovk and Shafer, https://arxiv.org/abs/2210.01948). Since each ratio grows with the
number of failures, what holds at the bound holds below it. Which observations are made may depend on those before.
"""

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["Evidence", "Interval", "wilson"]

_ALTERNATIVES: Final = 16
_LARGEST: Final = 0.5
_Z95: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Interval:
    """A share and its bounds."""

    low: float
    share: float
    high: float


def wilson(failures: int, observations: int) -> Interval:
    """The share of failures with Wilson's 95% score interval (1927): for showing, not for deciding while looking."""
    if not observations:
        return Interval(0.0, 0.0, 1.0)
    share, squared = failures / observations, _Z95 * _Z95
    scale = 1 + squared / observations
    middle = (share + squared / (2 * observations)) / scale
    half = _Z95 / scale * math.sqrt(share * (1 - share) / observations + squared / (4 * observations**2))
    return Interval(max(middle - half, 0.0), share, min(middle + half, 1.0))


class Evidence:
    """Against "at most `bound` of them fail": a number that is 1 at first, and large when that is hard to believe.

    The alternatives are spread evenly in their logarithm from the bound to a half (or to 1, from a large bound), each
    as likely as the next.
    """

    __slots__ = ("_failure", "_logs", "_success", "value")

    def __init__(self, bound: float) -> None:
        """`bound` lies between 0 and 1, without them."""
        largest = _LARGEST if bound < _LARGEST else 1 - (1 - bound) / 2
        steps = ((number + 0.5) / _ALTERNATIVES for number in range(_ALTERNATIVES))
        shares = [bound * (largest / bound) ** step for step in steps]
        self._failure = [math.log(share / bound) for share in shares]
        self._success = [math.log((1 - share) / (1 - bound)) for share in shares]
        self._logs = [0.0] * _ALTERNATIVES
        self.value = 1.0

    def observe(self, *, failed: bool) -> None:
        """One more."""
        gains = self._failure if failed else self._success
        self._logs = [log + gain for log, gain in zip(self._logs, gains, strict=True)]
        top = max(self._logs)
        mean = math.fsum(math.exp(log - top) for log in self._logs) / _ALTERNATIVES
        self.value = math.exp(min(top + math.log(mean), 700.0))
