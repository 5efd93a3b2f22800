"""Who goes next."""

from hypothesis import given
from hypothesis import strategies as st

from edge.engine.waiting import WaitingList


@given(st.lists(st.integers(0, 3)), st.sets(st.integers(0, 20)))
def test_priority_first_then_arrival_whoever_left(priorities: list[int], leaving: set[int]) -> None:
    waiting = WaitingList[tuple[int, int]]()
    for arrival, priority in enumerate(priorities):
        waiting.push((priority, arrival), priority)

    left = waiting.take(lambda one: one[1] in leaving)
    popped = [waiting.pop() for _ in range(len(waiting))]

    everyone = sorted((priority, arrival) for arrival, priority in enumerate(priorities))
    assert left == [one for one in everyone if one[1] in leaving]
    assert popped == [one for one in everyone if one[1] not in leaving]
