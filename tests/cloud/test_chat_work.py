"""Who gets the decode loop's slots: cancellation, deadlines, priorities, a full house."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest

from cloud.wire import ErrorCode
from tests.cloud.clients import AnswerError, ChatClient, Metrics, Response
from tests.cloud.conftest import BACKLOG, SLOTS

# Greedy gibberish does not end before its 16,000 tokens, which takes long.
ENDLESS = {"temperature": 0, "max_tokens": 16_000}


@pytest.fixture(autouse=True)
async def all_is_quiet(metrics: Metrics) -> AsyncIterator[None]:
    """Each test starts with free slots, must leave them free at once, and starts nothing that is late."""
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="active")
    yield
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="active")
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="waiting")
    assert await outcomes(metrics, "started_late") == 0


@asynccontextmanager
async def busy(chat: ChatClient, count: int = SLOTS) -> AsyncIterator[list[AsyncIterator[Response]]]:
    """Streams that run, each with a slot of its own; they are cancelled at the end."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(chat.stream(sampling=ENDLESS))) for _ in range(count)]
        for stream in streams:
            await anext(stream)
        yield list(streams)


async def outcomes(metrics: Metrics, outcome: str) -> float:
    return await metrics.read("hybrid_chat_generations_total", outcome=outcome)


async def exhaust_until_cancelled(chat: ChatClient, request_id: str) -> ErrorCode | None:
    """The code of the error that ends a stream."""
    with pytest.raises(AnswerError) as ended:
        await exhaust(chat.stream(sampling=ENDLESS, request_id=request_id))
    return ended.value.code


async def exhaust(responses: AsyncIterator[Response]) -> None:
    async for _ in responses:
        pass


async def test_a_stream_that_is_left_frees_its_slot(chat: ChatClient, metrics: Metrics) -> None:
    before = await outcomes(metrics, "cancelled")

    async with busy(chat, 1):
        await metrics.wait_for(1, "hybrid_chat_generations_now", state="active")

    await metrics.wait_for(before + 1, "hybrid_chat_generations_total", outcome="cancelled")
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="active")


async def test_a_call_that_is_cancelled_frees_its_slot(chat: ChatClient, metrics: Metrics) -> None:
    """The stock backend's way; what happens when a client dies."""
    before = await outcomes(metrics, "cancelled")

    async with aclosing(chat.stream(sampling=ENDLESS, hang_up=True)) as responses:
        await anext(responses)

    await metrics.wait_for(before + 1, "hybrid_chat_generations_total", outcome="cancelled")


async def test_leaving_and_refusing_at_full_speed_leave_the_server_up(chat: ChatClient) -> None:
    """Cancelled gRPC calls do kill this tritonserver, sooner or later; `CHAT_CANCEL` must not."""

    async def leave() -> None:
        with contextlib.suppress(AnswerError):
            async with aclosing(chat.stream(sampling=ENDLESS)) as responses:
                await anext(responses)

    for _ in range(25):
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(leave())

    assert (await chat.ask(sampling={"max_tokens": 3})).text


async def test_a_whole_answer_that_is_left_frees_its_slots(chat: ChatClient, metrics: Metrics) -> None:
    before = await outcomes(metrics, "cancelled")

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(chat.ask(sampling={**ENDLESS, "n": 2}))
        await metrics.wait_for(2, "hybrid_chat_generations_now", state="active")
        asking.cancel()

    await metrics.wait_for(before + 2, "hybrid_chat_generations_total", outcome="cancelled")


async def test_a_request_that_is_left_while_it_waits_never_starts(chat: ChatClient, metrics: Metrics) -> None:
    started, cancelled = [await outcomes(metrics, each) for each in ("started", "cancelled")]

    async with busy(chat), asyncio.TaskGroup() as group:
        asking = group.create_task(chat.ask(sampling=ENDLESS))
        await metrics.wait_for(1, "hybrid_chat_generations_now", state="waiting")
        asking.cancel()
        await metrics.wait_for(cancelled + 1, "hybrid_chat_generations_total", outcome="cancelled")

    # one that waited may take the first slot that comes free before its own end is read
    assert started + SLOTS <= await outcomes(metrics, "started") < started + SLOTS + BACKLOG


async def test_one_message_ends_many_requests(chat: ChatClient, metrics: Metrics) -> None:
    """Those that run, those that wait, and one that has not come yet."""
    started, cancelled = [await outcomes(metrics, each) for each in ("started", "cancelled")]
    ids = [f"leaving {number}" for number in range(SLOTS + BACKLOG)]

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(exhaust_until_cancelled(chat, request_id)) for request_id in ids]
        await metrics.wait_for(SLOTS, "hybrid_chat_generations_now", state="active")
        await metrics.wait_for(BACKLOG, "hybrid_chat_generations_now", state="waiting")
        await chat.end(*ids, "not here yet")
    codes = [task.result() for task in asking]
    codes.append(await exhaust_until_cancelled(chat, "not here yet"))

    assert codes == [ErrorCode.CANCELLED] * (SLOTS + BACKLOG + 1)
    await metrics.wait_for(cancelled + SLOTS + BACKLOG + 1, "hybrid_chat_generations_total", outcome="cancelled")
    # one that waits may take a slot that this very message freed before its own name is read
    assert started + SLOTS <= await outcomes(metrics, "started") < started + SLOTS + BACKLOG


async def test_a_full_backlog_refuses_at_once(chat: ChatClient, metrics: Metrics) -> None:
    async with busy(chat), asyncio.TaskGroup() as group:
        waiting = [group.create_task(chat.ask(sampling=ENDLESS)) for _ in range(BACKLOG)]
        await metrics.wait_for(BACKLOG, "hybrid_chat_generations_now", state="waiting")

        with pytest.raises(AnswerError) as refused:
            await chat.ask(sampling=ENDLESS)
        for task in waiting:
            task.cancel()

    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED


async def test_choices_that_do_not_all_fit_are_refused_together(chat: ChatClient, metrics: Metrics) -> None:
    cancelled = await outcomes(metrics, "cancelled")

    with pytest.raises(AnswerError) as refused:
        await chat.ask(sampling={**ENDLESS, "n": SLOTS + BACKLOG + 1})

    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    await metrics.wait_for(cancelled + SLOTS + BACKLOG, "hybrid_chat_generations_total", outcome="cancelled")


async def test_the_timeout_of_a_waiting_request_passes(chat: ChatClient, metrics: Metrics) -> None:
    started, before = [await outcomes(metrics, each) for each in ("started", "expired")]

    async with busy(chat):
        with pytest.raises(AnswerError) as expired:
            await anext(chat.stream(sampling=ENDLESS, timeout_us=100_000))

    assert expired.value.code is ErrorCode.DEADLINE_EXCEEDED
    await metrics.wait_for(before + 1, "hybrid_chat_generations_total", outcome="expired")
    assert await outcomes(metrics, "started") == started + SLOTS


async def test_the_timeout_of_a_running_request_passes(chat: ChatClient) -> None:
    async with aclosing(chat.stream(sampling=ENDLESS, timeout_us=200_000)) as responses:
        assert (await anext(responses)).text

        with pytest.raises(AnswerError) as expired:
            await exhaust(responses)

    assert expired.value.code is ErrorCode.DEADLINE_EXCEEDED


HOUR_US = 3_600_000_000


@pytest.mark.parametrize(
    ("first", "overtakes"),
    [((3, HOUR_US), (1, None)), ((2, None), (2, HOUR_US)), ((2, 2 * HOUR_US), (0, HOUR_US))],
    ids=["an urgent one", "a hurried one", "one more hurried, of no priority, which means the middle"],
)
async def test_one_overtakes_those_who_wait(
    chat: ChatClient, metrics: Metrics, first: tuple[int, int | None], overtakes: tuple[int, int | None]
) -> None:
    order: list[tuple[int, int | None]] = []

    async def ask(priority: int, timeout_us: int | None) -> None:
        sampling = {**ENDLESS, "max_tokens": 3}
        async with aclosing(chat.stream(sampling=sampling, priority=priority, timeout_us=timeout_us)) as responses:
            await anext(responses)
            order.append((priority, timeout_us))

    async with asyncio.TaskGroup() as group, busy(chat, SLOTS - 1):
        async with busy(chat, 1):
            asked = [group.create_task(ask(*first))]
            await metrics.wait_for(1, "hybrid_chat_generations_now", state="waiting")
            asked.append(group.create_task(ask(*overtakes)))
            await metrics.wait_for(2, "hybrid_chat_generations_now", state="waiting")
        await asyncio.wait(asked)  # in the one free slot, one after the other

    assert order == [overtakes, first]
