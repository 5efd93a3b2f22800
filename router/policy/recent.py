"""The last scores, and the line above which a wanted share of them lies."""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque

NEVER = math.nextafter(1.0, 2.0)
"""A threshold that no score reaches."""
_GOLDEN = (math.sqrt(5) - 1) / 2


class RecentScores:
    """A sliding window of scores, kept in order: some microseconds a score at a thousand."""

    def __init__(self, capacity: int) -> None:
        self._arrived: deque[float] = deque()
        self._ordered: list[float] = []
        self._capacity = capacity

    @property
    def full(self) -> bool:
        """Whether each new score displaces an old one."""
        return len(self._arrived) == self._capacity

    def add(self, score: float) -> None:
        """The newest score; the oldest leaves a full window."""
        if self.full:
            del self._ordered[bisect_left(self._ordered, self._arrived.popleft())]
        self._arrived.append(score)
        insort(self._ordered, score)

    def line(self, share: float, dither: float) -> float:
        """The threshold that sends `share` of scores like these.

        Args:
            share: The wanted share; below 0 is 0, above 1 is 1.
            dither: In [0, 1), evenly spread over the calls. Where the line falls among equal scores, the threshold is
                theirs for small values and just above them for large ones, so that the right part of them goes.
        """
        if share <= 0:
            return NEVER
        if share >= 1:
            return 0.0
        count = len(self._ordered)
        if not count:
            return 1 - share  # as if scores were uniform, which calibrated ones may be
        wanted = share * count
        score = self._ordered[count - math.ceil(wanted)]
        above = count - bisect_right(self._ordered, score)
        equal = count - above - bisect_left(self._ordered, score)
        return score if dither < (wanted - above) / equal else math.nextafter(score, 2.0)


class Dither:
    """The golden-ratio sequence: of all sequences in [0, 1) the one whose every stretch is spread most evenly."""

    def __init__(self) -> None:
        self._last = 0.0

    def draw(self) -> float:
        """The next value."""
        self._last = (self._last + _GOLDEN) % 1
        return self._last
