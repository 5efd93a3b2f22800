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
    """Each test starts with free slots, and must leave them free at once."""
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="active")
    yield
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="active")
    await metrics.wait_for(0, "hybrid_chat_generations_now", state="waiting")


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

    assert await outcomes(metrics, "started") == started + SLOTS


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
    started = await outcomes(metrics, "started")

    async with busy(chat):
        with pytest.raises(AnswerError) as expired:
            await anext(chat.stream(sampling=ENDLESS, timeout_us=100_000))

    assert expired.value.code is ErrorCode.DEADLINE_EXCEEDED
    await metrics.wait_for(started + SLOTS, "hybrid_chat_generations_total", outcome="started")


async def test_the_timeout_of_a_running_request_passes(chat: ChatClient) -> None:
    async with aclosing(chat.stream(sampling=ENDLESS, timeout_us=200_000)) as responses:
        assert (await anext(responses)).text

        with pytest.raises(AnswerError) as expired:
            await exhaust(responses)

    assert expired.value.code is ErrorCode.DEADLINE_EXCEEDED


async def test_the_urgent_overtake_those_who_wait(chat: ChatClient, metrics: Metrics) -> None:
    order: list[int] = []

    async def ask(priority: int) -> None:
        async with aclosing(chat.stream(sampling={**ENDLESS, "max_tokens": 3}, priority=priority)) as responses:
            await anext(responses)
            order.append(priority)

    async with asyncio.TaskGroup() as group, busy(chat):
        group.create_task(ask(3))
        await metrics.wait_for(1, "hybrid_chat_generations_now", state="waiting")
        group.create_task(ask(1))
        await metrics.wait_for(2, "hybrid_chat_generations_now", state="waiting")

    assert order == [1, 3]
