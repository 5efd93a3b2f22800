"""A load balancer as small as can be: TCP, to the replicas in turn whose `/health/ready` says yes."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

_LOOK_S = 0.5
_PIECE_BYTES = 65_536


class Balancer:
    """`with Balancer(ports) as balancer`: listens on `balancer.port`, in a thread of its own."""

    def __init__(self, replicas: Sequence[int]) -> None:
        self.port = 0
        self._ready: list[int] = []
        self._replicas = replicas
        self._turn = 0
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        self._over = asyncio.Event()
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server, asyncio.TaskGroup() as group:
            self.port = server.sockets[0].getsockname()[1]
            looking = group.create_task(self._look())
            self._listening.set()
            await self._over.wait()
            looking.cancel()

    async def _look(self) -> None:
        while True:
            answers = await asyncio.gather(*map(is_ready, self._replicas))
            self._ready = [port for port, ready in zip(self._replicas, answers, strict=True) if ready]
            await asyncio.sleep(_LOOK_S)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            self._turn += 1
            inward, outward = await self._connect()
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, outward))
                group.create_task(pump(inward, writer))
            await asyncio.gather(outward.wait_closed(), writer.wait_closed(), return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the next ready replica that takes connections."""
        for step in range(len(self._ready)):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ready[(self._turn + step) % len(self._ready)])
        raise ConnectionRefusedError


async def is_ready(port: int) -> bool:
    """What a replica says."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health/ready HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    return False


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends; then the other ends too."""
    with suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()
