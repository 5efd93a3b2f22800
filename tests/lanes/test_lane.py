"""Waiting for a slot. README.md beside this says which break each property was seen to catch."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config.lanes import Lane as LaneSection
from router.errors import DeadlineError, OverloadedError
from router.lane import Lane
from router.query import Priority
from router.rates import Work
from router.tickets import Demand

WORK = Work(50, 50)


def demand(priority: Priority = Priority.STANDARD, deadline: float = inf) -> Demand:
    return Demand(priority, "ann", WORK, deadline)


@dataclass
class Asker:
    """Asks for a slot, holds it until told to go, and says where it stands."""

    lane: Lane
    demand: Demand
    holds: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    async def ask(self) -> None:
        try:
            async with self.lane.slot(self.demand) as turn:
                self.holds = True
                try:
                    await self.go.wait()
                    turn.finish(WORK)
                finally:
                    self.holds = False
        except (OverloadedError, DeadlineError) as exc:
            self.error = exc


@dataclass
class Crowd:
    """Askers, and their tasks."""

    lane: Lane
    group: asyncio.TaskGroup
    askers: list[tuple[Asker, asyncio.Task[None]]] = field(default_factory=list)

    def ask(self, demand: Demand) -> None:
        asker = Asker(self.lane, demand)
        self.askers.append((asker, self.group.create_task(asker.ask())))

    def holding(self) -> int:
        return sum(asker.holds for asker, _ in self.askers)

    def undecided(self) -> int:
        return sum(not task.done() and not asker.holds for asker, task in self.askers)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


ACTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2)),
    st.tuples(st.just("go"), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 3)),
)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(work)


@given(st.integers(1, 3), st.integers(0, 4), st.lists(ACTS, max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_slot_is_lost_or_held_twice_whoever_leaves_whenever(
    slots: int, backlog: int, acts: list[tuple[str, int]]
) -> None:
    """Asks, ends and cancellations in any order, in the same loop iteration or some later: every await is met."""

    async def scenario() -> None:
        lane = Lane("edge", LaneSection(slots=slots, backlog=backlog))
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(lane, group)
            for act, number in acts:
                match act:
                    case "ask":
                        crowd.ask(demand(list(Priority)[number]))
                    case "step":
                        for _ in range(number):
                            await asyncio.sleep(0)
                            assert crowd.holding() <= slots, "more hold a slot than there are"
                    case _ if crowd.askers:
                        asker, task = crowd.askers[number % len(crowd.askers)]
                        if act == "go":
                            asker.go.set()
                        else:
                            task.cancel()
                assert crowd.holding() <= slots, "more hold a slot than there are"
            await crowd.settle()
            assert crowd.holding() == slots or not crowd.undecided(), "a slot is free, and somebody waits for it"
            for asker, _ in crowd.askers:
                asker.go.set()
            await crowd.settle()
            for _ in range(len(crowd.askers)):
                await crowd.settle()
            assert not crowd.undecided(), "nobody wakes the rest"
        statistics = lane.statistics()
        assert (statistics.running, statistics.backlog) == (0, 0)
        assert not lane._turns

    run(scenario())


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("together", [True, False])
async def test_one_cancelled_after_any_number_of_steps_passes_its_slot_on(steps: int, together: bool) -> None:
    """The holder ends, and the one it is followed by leaves: before, at the very moment, and after its turn came."""
    lane = Lane("edge", LaneSection(slots=1, backlog=5))
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(lane, group)
        for _ in range(3):
            crowd.ask(demand())
        await crowd.settle()
        (first, _), (_, second_task), (third, _) = crowd.askers

        first.go.set()
        if together:
            second_task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
        second_task.cancel()
        await crowd.settle()

        assert third.holds
        third.go.set()
    assert lane.statistics().running == 0


async def test_backlog_slots_and_one_more_at_once_refuse_exactly_one() -> None:
    lane = Lane("edge", LaneSection(slots=3, backlog=7))
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(lane, group)
        for _ in range(11):
            crowd.ask(demand())
        await crowd.settle()
        errors = [asker.error for asker, _ in crowd.askers if asker.error]
        for asker, _ in crowd.askers:
            asker.go.set()

    assert len(errors) == 1
    assert isinstance(errors[0], OverloadedError)
    assert errors[0].retry_after_s is not None


async def test_a_more_urgent_one_takes_the_place_of_the_latest_less_urgent_one() -> None:
    lane = Lane("edge", LaneSection(slots=1, backlog=2))
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(lane, group)
        for priority in (Priority.BATCH, Priority.BATCH, Priority.BATCH, Priority.INTERACTIVE):
            crowd.ask(demand(priority))
        await crowd.settle()
        shed = [asker.error for asker, _ in crowd.askers]
        for asker, _ in crowd.askers:
            asker.go.set()

    assert [type(error) for error in shed] == [type(None), type(None), OverloadedError, type(None)]


async def test_one_that_waits_past_its_deadline_is_told_at_once_and_never_starts() -> None:
    lane = Lane("edge", LaneSection(slots=1, backlog=5))
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(lane, group)
        crowd.ask(demand())
        await crowd.settle()
        began = time.monotonic()
        for milliseconds in (80, 40, 120):
            crowd.ask(demand(deadline=began + milliseconds / 1000))
        late = crowd.askers[1:]
        ended = []
        for _, task in sorted(late, key=lambda pair: pair[0].demand.deadline):
            await task
            ended.append(time.monotonic() - began)
        crowd.askers[0][0].go.set()

    assert all(isinstance(asker.error, DeadlineError) for asker, _ in late)
    assert ended == pytest.approx([0.04, 0.08, 0.12], abs=0.03)
    assert lane.statistics().classes[Priority.STANDARD].count.started == 1


async def test_a_deadline_that_has_passed_is_an_error_even_with_free_slots() -> None:
    lane = Lane("edge", LaneSection(slots=1))

    with pytest.raises(DeadlineError):
        async with lane.slot(demand(deadline=time.monotonic() - 1)):
            pytest.fail("too late, and started all the same")


async def test_an_error_inside_gives_the_slot_back() -> None:
    lane = Lane("edge", LaneSection(slots=1))

    with pytest.raises(ZeroDivisionError):
        async with lane.slot(demand()):
            raise ZeroDivisionError

    assert lane.statistics().running == 0


async def test_a_lane_learns_from_answers_and_forecasts() -> None:
    lane = Lane("edge", LaneSection(slots=1))
    for _ in range(6):
        async with lane.slot(demand()) as turn:
            await asyncio.sleep(0.02)
            turn.finish(WORK, first_s=0.01)

    forecast = lane.forecast(demand())

    assert forecast.wait_s == 0
    assert forecast.first_s == pytest.approx(0.01, rel=0.2)
    assert forecast.finish_s == pytest.approx(0.021, rel=0.3)


async def test_who_obeys_retry_after_gets_in_and_a_third_sooner_would_not() -> None:
    """Real time: service of 200 ms, everything full; the refused one comes back when told, another 30% sooner."""
    lane = Lane("edge", LaneSection(slots=2, backlog=2))

    async def serve() -> None:
        async with lane.slot(demand()) as turn:
            await asyncio.sleep(0.2)
            turn.finish(WORK, first_s=0.1)

    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(serve())

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(serve())
        await asyncio.sleep(0.005)
        with pytest.raises(OverloadedError) as refused:
            await serve()
        retry_after_s = refused.value.retry_after_s
        assert retry_after_s is not None
        await asyncio.sleep(retry_after_s * 0.7)
        with pytest.raises(OverloadedError):
            await serve()
        await asyncio.sleep(retry_after_s * 0.3 + 0.02)
        await serve()
