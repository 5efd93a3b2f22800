"""Who goes next."""

import math
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.engine.waiting import WaitingList

DEADLINES = st.one_of(st.just(math.inf), st.integers(0, 20).map(float))


class AgainstASortedList(RuleBasedStateMachine):
    """A list that is sorted anew for every question says what the two heaps must say."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = WaitingList[str]()
        self.model: list[tuple[int, float, int, str]] = []
        self.arrivals = 0
        self.left: list[str] = []

    @rule(priority=st.integers(0, 2), deadline=DEADLINES, again=st.booleans())
    def push(self, priority: int, deadline: float, again: bool) -> None:
        """Also of one that was here before, whose dead entries may still be around."""
        self.arrivals += 1
        item = self.left.pop() if again and self.left else f"item {self.arrivals}"
        self.waiting.push(item, priority, deadline)
        self.model.append((priority, deadline, self.arrivals, item))

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        first = min(self.model)
        self.model.remove(first)
        self.left.append(first[3])
        assert self.waiting.pop() == first[3]

    @precondition(lambda self: self.model)
    @rule(random=st.randoms(use_true_random=False))
    def discard(self, random: Random) -> None:
        entry = random.choice(self.model)
        self.model.remove(entry)
        self.left.append(entry[3])
        assert self.waiting.discard(entry[3])
        assert not self.waiting.discard(entry[3])

    @rule(now=st.integers(0, 20))
    def expire(self, now: int) -> None:
        late = sorted((entry for entry in self.model if entry[1] <= now), key=lambda entry: entry[1:3])
        self.model = [entry for entry in self.model if entry[1] > now]
        self.left += [entry[3] for entry in late]
        assert self.waiting.expire(now) == [entry[3] for entry in late]

    @rule()
    def clear(self) -> None:
        assert self.waiting.clear() == [entry[3] for entry in self.model]
        self.left += [entry[3] for entry in self.model]
        self.model = []

    @invariant()
    def agree(self) -> None:
        assert len(self.waiting) == len(self.model)
        assert self.waiting.peek() == (min(self.model)[3] if self.model else None)


TestAgainstASortedList = AgainstASortedList.TestCase


def test_priority_then_deadline_then_arrival() -> None:
    waiting = WaitingList[str]()
    waiting.push("batch, soon", 2, 1.0)
    waiting.push("standard", 1)
    waiting.push("standard, later", 1, 9.0)
    waiting.push("standard, soon", 1, 2.0)
    waiting.push("standard, soon too", 1, 2.0)
    waiting.push("interactive", 0)

    order = [waiting.pop() for _ in range(len(waiting))]

    assert order == [
        "interactive",
        "standard, soon",
        "standard, soon too",
        "standard, later",
        "standard",
        "batch, soon",
    ]
    with pytest.raises(IndexError):
        waiting.pop()


def test_those_who_leave_do_not_stay_in_memory() -> None:
    waiting = WaitingList[int]()
    waiting.push(-1, 0)

    for item in range(10_000):
        waiting.push(item, 1, 5.0)
        waiting.discard(item)

    assert len(waiting) == 1
    assert len(waiting._order) + len(waiting._deadlines) < 100
