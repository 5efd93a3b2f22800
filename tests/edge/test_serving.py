"""Work that ends with its client, whether or not it waits for anything."""

import asyncio
from typing import Any

import pytest

from edge.hang_up import HangUpError, until_hang_up
from edge.serving import CutError, Drain


class Line:
    """A client's side of a connection; `receive` as ASGI has it."""

    def __init__(self) -> None:
        self.hung_up = asyncio.Event()
        self.watched = False

    async def receive(self) -> Any:
        """Waits for the end."""
        self.watched = True
        await self.hung_up.wait()
        return {"type": "http.disconnect"}


async def answer() -> str:
    """Work that waits for nothing."""
    return "done"


async def refuse() -> str:
    """Work that fails before it waits."""
    raise KeyError("refused")


async def answer_slowly(waits: int = 3) -> str:
    """Work that waits, in every way a task can."""
    for _ in range(waits):
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
    return "done"


async def test_work_that_waits_for_nothing_is_not_watched() -> None:
    line = Line()

    assert await until_hang_up(line.receive, answer()) == "done"
    with pytest.raises(KeyError, match="refused"):
        await until_hang_up(line.receive, refuse())
    assert not line.watched


async def test_work_that_waits_gives_its_result_or_its_error() -> None:
    line = Line()

    async def fail_late() -> None:
        await answer_slowly()
        raise KeyError("late")

    assert await until_hang_up(line.receive, answer_slowly()) == "done"
    with pytest.raises(KeyError, match="late"):
        await until_hang_up(line.receive, fail_late())
    assert line.watched


async def test_the_work_stays_in_its_task() -> None:
    seen = []

    async def look() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    await until_hang_up(Line().receive, look())

    assert seen == [asyncio.current_task()] * 2


async def test_a_timeout_inside_the_work_is_its_own() -> None:
    async def be_late() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(0)
        return "in time"

    assert await until_hang_up(Line().receive, be_late()) == "in time"


async def test_a_hang_up_cancels_the_work_which_may_clean_up_first() -> None:
    line = Line()
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            line.hung_up.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)
            cleaned.append(True)

    async with asyncio.timeout(5):
        with pytest.raises(HangUpError):
            await until_hang_up(line.receive, work())
    assert cleaned == [True]


async def test_a_hang_up_as_the_work_ends_comes_too_late() -> None:
    line = Line()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))

    async def work() -> str:
        await asyncio.sleep(0)
        line.hung_up.set()  # seen one turn of the loop later
        return "done"

    assert await until_hang_up(line.receive, work()) == "done"
    await asyncio.sleep(0.001)
    assert complaints == []
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_only_a_hang_up_is_one() -> None:
    messages = ["http.request", "http.request", "http.disconnect"]

    async def receive() -> Any:
        await asyncio.sleep(0.001 if len(messages) == 2 else 0)
        return {"type": messages.pop(0)}

    async with asyncio.timeout(5):
        with pytest.raises(HangUpError):
            await until_hang_up(receive, asyncio.sleep(60))
    assert messages == []


async def test_the_drain_limit_cuts_the_work() -> None:
    drain = Drain()

    async def serve() -> None:
        with drain.holding():
            await until_hang_up(Line().receive, asyncio.sleep(60))

    async def expire() -> None:
        await asyncio.sleep(0.01)
        assert drain.busy()
        drain.expire()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(expire())
        with pytest.raises(CutError):
            await serve()
    assert not drain.busy()
