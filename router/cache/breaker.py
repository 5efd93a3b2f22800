"""Keeping what is dead out of the path. No clock, no I/O."""

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Breaker:
    """Closed at first; opens after so many failures in a row, and then admits one probe every `open_s`.

    Times are seconds of any one clock. See Nygard, "Release It!", "Circuit Breaker".
    """

    failures_to_open: int
    open_s: float
    streak: int = 0
    next_probe: float = -inf
    succeeded_at: float = -inf

    @property
    def open(self) -> bool:
        """Whether only probes get through."""
        return self.streak >= self.failures_to_open

    def admit(self, now: float) -> bool:
        """Whether a call may be made; a probe that never tells its outcome is followed by another."""
        if not self.open:
            return True
        if now < self.next_probe:
            return False
        self.next_probe = now + self.open_s
        return True

    def succeed(self, now: float) -> None:
        """A call went well."""
        self.streak = 0
        self.succeeded_at = now

    def fail(self, now: float, begun: float) -> None:
        """A call failed, or was given up; if another succeeded since it began, too much was asked, and nothing died."""
        if self.succeeded_at >= begun:
            return
        self.streak += 1
        if self.open:
            self.next_probe = now + self.open_s
