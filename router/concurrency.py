"""How many slots a target really has, by the gradient of its latency."""

_FALL = 2 / 101
_RISE = 2 / 6001
"""How fast the resting latency follows: Gradient2's one mean over 600 answers takes a lasting queue for rest."""
_WARM_UP = 10
_SMOOTHING = 0.2


class Gradient:
    """
    Netflix's Gradient2 (github.com/Netflix/concurrency-limits, `Gradient2Limit`), an heir of TCP Vegas (Brakmo,
    Peterson, 1995): while latency is at rest the limit grows by a little queue, when latency rises above its long mean
    the limit shrinks by their ratio, at most by half. Unlike there the long mean falls fast and rises slowly.

    Latency is whatever one slot's speed is told by, such as seconds a token; only ratios count.
    """

    def __init__(self, least: int, most: int, queue: float = 1.0, tolerance: float = 1.1) -> None:
        """
        Args:
            least: Slots, also those at the start.
            most: Slots.
            queue: How many slots more to try while latency rests.
            tolerance: Latency up to so many times the long mean is rest.
        """
        self._least = least
        self._most = most
        self._queue = queue
        self._tolerance = tolerance
        self._limit = float(least)
        self._resting = 0.0
        self._count = 0

    @property
    def slots(self) -> int:
        """Now."""
        return int(self._limit)

    def add(self, latency: float, running: int) -> None:
        """An answer's latency (> 0), and how many ran when it ended, itself included."""
        self._count += 1
        if self._count <= _WARM_UP:
            self._resting += (latency - self._resting) / self._count
        else:
            self._resting += (latency - self._resting) * (_FALL if latency < self._resting else _RISE)
        if running < self._limit / 2:
            return  # so few that their latency says nothing of the limit
        gradient = max(0.5, min(1.0, self._tolerance * self._resting / latency))
        wanted = self._limit * gradient + self._queue
        moved = self._limit * (1 - _SMOOTHING) + wanted * _SMOOTHING
        self._limit = max(float(self._least), min(float(self._most), moved))
