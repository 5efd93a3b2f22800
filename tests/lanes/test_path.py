"""Slots in the path of a query: taken before a target is asked, and given back however the answer ends."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.config import Check
from router.config.lanes import Lane, Pressure
from router.decision import Reason, Rules, Tier
from router.errors import BackendError, DeadlineError, OverloadedError, RouterError, UnavailableError
from router.lanes import TargetLane
from router.query import Priority, Query
from router.telemetry import Stopwatch
from router.tickets import LaneStatistics, Tally
from tests.router.places import CLOUD, EDGE, QUERY, Bench, Judge, Place, bench, easy, read, strong

pytestmark = pytest.mark.anyio

ONE = Lane(slots=1, backlog=10)
AT_EDGE, AT_CLOUD = Rules(wish=Tier.EDGE), Rules(wish=Tier.CLOUD)
ALWAYS = Rules(check=True)


def slow(pieces: int = 3, each_s: float = 0.03) -> Place:
    return Place([f"e{n} " for n in range(pieces)], delays_s=[each_s] * pieces)


def lane(made: Bench, target: str = EDGE.name) -> LaneStatistics:
    return made.lanes[target].statistics()


def count(made: Bench, target: str = EDGE.name, priority: Priority = Priority.STANDARD) -> Tally:
    return lane(made, target).classes[priority].count


async def until(made: Bench, *, running: int, waiting: int = 0, target: str = EDGE.name) -> None:
    """Wait until the lane is so."""
    async with asyncio.timeout(5):
        while (lane(made, target).running, lane(made, target).backlog) != (  # noqa: ASYNC110 - a lane has no event
            running,
            waiting,
        ):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def narrow(edge: Place, cloud: Place, judge: Judge | None = None, lane: Lane = ONE) -> AsyncIterator[Bench]:
    """One slot a target. On leaving, `bench` holds every lane to having nothing running and nothing waiting."""
    async with bench(edge, cloud, judge or Judge(), lane=lane) as made:
        yield made


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_slot_is_one_answer_at_a_time_and_waiting_is_not_the_targets_time(streamed: bool) -> None:
    edge, most, watches = slow(), 0, [Stopwatch() for _ in range(4)]

    async def ask(made: Bench, watch: Stopwatch) -> None:
        nonlocal most
        caching = made.caching()
        if streamed:
            begun = await made.pipeline.stream(QUERY, AT_EDGE, caching, watch)
            async for _ in begun.pieces.for_client():
                most = max(most, edge.running)
            await begun.pieces.aclose()
        else:
            await made.pipeline.answer(QUERY, AT_EDGE, caching, watch)
        watch.answered()

    async with narrow(edge, strong()) as made, asyncio.TaskGroup() as group:
        for watch in watches:
            group.create_task(ask(made, watch))

    assert most <= 1
    assert len(edge.asked) == 4
    queued = sorted(watch.queue_s for watch in watches)
    assert queued[0] < 0.02
    assert queued[-1] > 0.25, "the last waited for three answers of 90 ms"
    assert all(watch.backend_s < 0.2 for watch in watches), "waiting counts as the target's time"
    assert all(watch.overhead_s() < 0.1 for watch in watches), "waiting counts as the router's time"


@pytest.mark.parametrize("streamed", [False, True])
async def test_who_leaves_the_backlog_takes_nothing_with_them(streamed: bool) -> None:
    edge = slow()
    async with narrow(edge, strong()) as made, asyncio.TaskGroup() as group:
        ask = made.stream if streamed else made.answer
        first = group.create_task(made.answer(rules=AT_EDGE))
        await until(made, running=1)
        second = group.create_task(ask(rules=AT_EDGE))
        await until(made, running=1, waiting=1)
        second.cancel()
        await asyncio.wait({second})

        assert lane(made).backlog == 0
        await first
        assert (count(made).started, count(made).cancelled) == (1, 1)
    assert len(edge.asked) == 1
    assert made.policy.paid() == 0


async def test_a_hang_up_in_the_middle_gives_the_slot_to_the_next() -> None:
    edge = slow(30)
    async with narrow(edge, strong()) as made, asyncio.TaskGroup() as group:
        begun = await made.stream(rules=AT_EDGE)
        waiting = group.create_task(made.answer(rules=AT_EDGE))
        await until(made, running=1, waiting=1)

        left = time.monotonic()
        await begun.pieces.aclose()
        await until(made, running=1)

        assert time.monotonic() - left < 0.5
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_a_trial_keeps_its_slot_while_the_stream_is_held_and_gives_it_up_before_the_clouds_is_waited_for() -> (
    None
):
    edge = slow(60, 0.005)
    judge = Judge(last=0.9, delay_s=0.05)
    async with narrow(edge, strong(), judge) as made, asyncio.TaskGroup() as group:
        async with made.lanes[CLOUD.name].slot(QUERY, Stopwatch()):
            asked = group.create_task(made.stream(rules=ALWAYS))
            await until(made, running=1)
            while not judge.shown:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)
            assert lane(made).running == 1, "the trial lasts, and its slot is free"

            await until(made, running=1, waiting=1, target=CLOUD.name)
            assert lane(made).running == 0, "the dropped answer's slot is kept while the cloud's is waited for"
        begun = await asked
        assert await read(begun) == "c1 c2"
        assert begun.origin.decision.reason is Reason.ESCALATED


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("failure", [BackendError, UnavailableError, OverloadedError])
async def test_a_failing_target_keeps_no_slot_and_the_fallback_takes_one(
    failure: type[RouterError], streamed: bool
) -> None:
    edge = dataclasses.replace(easy(), fails_at=0, failure=failure)
    async with narrow(edge, strong()) as made:
        if streamed:
            assert await read(await made.stream()) == "c1 c2"
        else:
            assert (await made.answer()).completion.choices[0].text == "c1 c2"
        assert lane(made).running == 0
        assert count(made, CLOUD.name).done == 1


async def test_a_stream_that_breaks_keeps_no_slot() -> None:
    async with narrow(dataclasses.replace(slow(), fails_at=2), strong()) as made:
        begun = await made.stream(rules=replace(AT_EDGE, check=False))
        with pytest.raises(BackendError):
            await read(begun)
        assert lane(made).running == 0


async def test_no_room_is_the_other_targets_work_and_batch_spills_only_if_it_may() -> None:
    full = Lane(slots=1, backlog=0)
    batch = replace(QUERY, priority=Priority.BATCH)
    for spill in (False, True):
        async with narrow(easy(), strong(), lane=full) as made:
            made.lanes[EDGE.name] = TargetLane(EDGE.name, Lane(slots=1, backlog=0, spill=spill), {})
            async with made.lanes[EDGE.name].slot(QUERY, Stopwatch()):
                answer = await made.answer()
                assert (answer.origin.decision.target, answer.origin.decision.reason) == (CLOUD, Reason.FALLBACK)
                if spill:
                    assert (await made.answer(batch)).origin.decision.target == CLOUD
                else:
                    with pytest.raises(OverloadedError) as caught:
                        await made.answer(batch)
                    assert caught.value.status == 429


async def test_who_is_refused_everywhere_is_told_when_to_come_back_and_pays_nothing() -> None:
    async with narrow(easy(), strong(), lane=Lane(slots=1, backlog=0)) as made:
        async with made.lanes[EDGE.name].slot(QUERY, Stopwatch()), made.lanes[CLOUD.name].slot(QUERY, Stopwatch()):
            with pytest.raises(OverloadedError) as caught:
                await made.answer()
        assert caught.value.retry_after_s is not None
        assert made.policy.paid() == made.policy.reserved() == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_deadline_that_passes_in_the_backlog_is_a_504_and_starts_nothing(streamed: bool) -> None:
    edge = slow(60)
    async with narrow(edge, strong()) as made:
        begun = await made.stream(rules=AT_EDGE)
        late = replace(QUERY, deadline=time.monotonic() + 0.05)
        with pytest.raises(DeadlineError) as caught:
            await (made.stream if streamed else made.answer)(late, AT_EDGE)

        assert caught.value.status == 504
        assert (count(made).started, count(made).expired) == (1, 1)
        assert made.policy.paid() == 0
        await begun.pieces.aclose()
    assert len(edge.asked) == 1


async def test_a_lane_learns_from_whole_answers_and_streams() -> None:
    async with narrow(slow(), strong()) as made:
        for _ in range(3):
            await made.answer(rules=AT_EDGE)
            await read(await made.stream(rules=AT_EDGE))

        forecast = made.lanes[EDGE.name].forecast(QUERY)
    assert forecast.wait_s == 0
    assert 0.01 < forecast.first_s < forecast.finish_s
    assert forecast.finish_s == pytest.approx(0.1, abs=0.06)


async def test_pressure_on_the_edge_sends_the_next_ones_to_the_cloud_unless_the_request_set_a_threshold() -> None:
    """A score of .4 is the edge's at .5; one long answer in its only slot, and the threshold falls below it."""
    pressure = Pressure(enabled=True, objective_s=0.01, shift_per_s=100.0, most_to_cloud=1.0)
    off = Rules(check=False)
    async with bench(slow(), strong(), Judge(first=0.4), lane=ONE, pressure=pressure) as made:
        for _ in range(6):
            assert (await made.answer(rules=replace(AT_EDGE, check=False))).origin.decision.shift == 0
        before = (await made.answer(rules=off)).origin.decision
        async with made.lanes[EDGE.name].slot(QUERY, Stopwatch()):
            for _ in range(5):
                await asyncio.sleep(0.01)
                moved = (await made.answer(rules=off)).origin.decision
            fixed = made.pipeline.answer(QUERY, replace(off, threshold=0.3), made.caching(), Stopwatch())
            own = (await fixed).origin.decision

    assert (before.target, before.threshold) == (EDGE, 0.5)
    assert (moved.target, moved.reason) == (CLOUD, Reason.HARD)
    assert moved.shift == pytest.approx(-1.0), "it goes as far as it may, and no farther"
    assert moved.threshold == pytest.approx(0.269, abs=1e-3)
    assert (own.threshold, own.shift) == (0.3, 0.0)


LEAVES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(list(Priority)), st.integers(0, 12), st.booleans()), min_size=2, max_size=8
)


@given(LEAVES, st.integers(1, 2), st.integers(0, 4), st.sampled_from([0.1, 0.9]))
@settings(max_examples=60, deadline=None)
def test_whoever_leaves_whenever_no_slot_is_lost(
    leaves: list[tuple[bool, Priority, int, bool]], slots: int, backlog: int, last: float
) -> None:
    """Whole and streamed, kept and escalated, left after any number of steps; `bench` counts the slots afterwards."""

    async def ask(made: Bench, query: Query, *, streamed: bool, reads: bool) -> None:
        with suppress(RouterError):
            if not streamed:
                await made.answer(query)
                return
            begun = await made.stream(query)
            try:
                if reads:
                    await read(begun)
            finally:
                await begun.pieces.aclose()

    async def scenario() -> None:
        section = Lane(slots=slots, backlog=backlog)
        check = Check(hold_tokens=2)
        async with (
            bench(easy(), strong(), Judge(last=last), check=check, lane=section) as made,
            asyncio.TaskGroup() as group,
        ):
            tasks = []
            for streamed, priority, steps, reads in leaves:
                query = replace(QUERY, priority=priority)
                tasks.append((group.create_task(ask(made, query, streamed=streamed, reads=reads)), steps))
            for step in range(13):
                for task, steps in tasks:
                    if steps == step and step:
                        task.cancel()
                assert lane(made).running <= slots
                await asyncio.sleep(0)
            await asyncio.wait([task for task, _ in tasks])

    with asyncio.Runner() as runner:
        runner.run(scenario())
