"""The log of requests: every line is written, in order, soon or at the stop."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from router.request_log import RequestLog, RequestRecord


@asynccontextmanager
async def running_log() -> AsyncIterator[RequestLog]:
    """A log that writes until the end."""
    log = RequestLog()
    async with asyncio.TaskGroup() as group:
        job = group.create_task(log.run())
        await asyncio.sleep(0)
        yield log
        job.cancel()


def make_record(number: int) -> RequestRecord:
    """A request that is over."""
    return RequestRecord(request_id=f"req_{number}", url="/v1/chat/completions", status=200)


def read_ids(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The request ids of the lines written so far."""
    return [json.loads(line)["request_id"] for one in caplog.records for line in one.getMessage().splitlines()]


async def test_lines_come_in_order_soon_after_their_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "router.requests")
    async with running_log() as log:
        for end in (3, 4):
            for number in range(len(read_ids(caplog)), end):
                log.add(make_record(number))
            with anyio.fail_after(5):
                while len(read_ids(caplog)) < end:  # noqa: ASYNC110 - the log is what is waited for
                    await anyio.sleep(0.001)

    assert read_ids(caplog) == ["req_0", "req_1", "req_2", "req_3"]
    assert {(one.name, one.levelname) for one in caplog.records} == {("router.requests", "INFO")}


async def test_a_stop_writes_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "router.requests")
    async with running_log() as log:
        log.add(make_record(1))

    assert read_ids(caplog) == ["req_1"]


async def test_a_level_that_leaves_the_lines_out_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "router.requests")
    async with running_log() as log:
        log.add(make_record(1))
        caplog.set_level(logging.INFO, "router.requests")

    assert read_ids(caplog) == []
