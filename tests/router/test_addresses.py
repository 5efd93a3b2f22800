"""Where a server is: one lookup at a time, however long it takes, kept until it leads nowhere."""

import asyncio
import socket

import anyio
import anyio.lowlevel
import pytest

from router.backends.addresses import Addresses, Found

pytestmark = pytest.mark.anyio


class Names:
    """A name server: it answers when it is told to, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.error: OSError | None = None

    async def look_up(self, host: str, port: int) -> Found:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{self.asked}", port))]


async def test_those_who_give_up_leave_one_lookup_that_serves_the_next() -> None:
    names = Names()
    addresses = Addresses("edge", 81, names.look_up)

    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await addresses.find()
    names.answers.set()

    assert await addresses.find() == [(socket.AF_INET, "127.0.0.1", 81)]
    assert await addresses.find() == [(socket.AF_INET, "127.0.0.1", 81)]
    assert names.asked == 1


async def test_what_led_nowhere_is_looked_up_again() -> None:
    names = Names()
    names.answers.set()
    addresses = Addresses("edge", 81, names.look_up)
    await addresses.find()

    addresses.forget()

    assert await addresses.find() == [(socket.AF_INET, "127.0.0.2", 81)]


async def test_a_name_that_leads_nowhere_is_an_error_each_time() -> None:
    names = Names()
    names.answers.set()
    names.error = socket.gaierror(-2, "unknown")
    addresses = Addresses("nobody", 81, names.look_up)

    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await addresses.find()

    assert names.asked == 2


async def test_nothing_is_left_of_a_lookup_that_nobody_waits_for() -> None:
    names = Names()
    addresses = Addresses("edge", 81, names.look_up)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await addresses.find()

    await addresses.aclose()
    await anyio.lowlevel.checkpoint()

    assert [task for task in asyncio.all_tasks() if "_find_anew" in repr(task)] == []
