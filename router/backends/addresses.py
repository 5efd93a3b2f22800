"""Where a server is, by its name."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

_KEPT_S: Final = 10.0
Address = tuple[socket.AddressFamily, str, int]
"""Family, numeric host, port."""
Found = Sequence[tuple[Any, Any, Any, str, Any]]
LookUp = Callable[[str, int], Awaitable[Found]]
"""As `loop.getaddrinfo`, for streams."""


class Addresses:
    """A host's, kept for some seconds.

    However many ask, and however soon they give up, one lookup runs at a time: the system's can take ten seconds where
    no name server answers, and the event loop has four threads for those of all targets.
    """

    def __init__(self, host: str, port: int, look_up: LookUp | None = None) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up or _ask_system
        self._found: Sequence[Address] = ()
        self._until = 0.0
        self._lookup: asyncio.Task[Sequence[Address]] | None = None

    async def find(self) -> Sequence[Address]:
        """At least one.

        Raises:
            OSError: the name leads nowhere.
        """
        if asyncio.get_running_loop().time() < self._until:
            return self._found
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._find_anew())  # noqa: TID251 - outlives who asked; `aclose` ends it
            self._lookup.add_done_callback(self._end)
        return await asyncio.shield(self._lookup)

    def forget(self) -> None:
        """They led nowhere: the server may be elsewhere by now."""
        self._until = 0.0

    async def aclose(self) -> None:
        """Nobody asks any more."""
        if self._lookup is not None:
            self._lookup.cancel()

    async def _find_anew(self) -> Sequence[Address]:
        said = await self._look_up(self._host, self._port)
        self._found = [(family, place[0], place[1]) for family, _, _, _, place in said]
        self._until = asyncio.get_running_loop().time() + _KEPT_S
        return self._found

    def _end(self, lookup: asyncio.Task[Sequence[Address]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # whoever still waits has it; nobody may


async def _ask_system(host: str, port: int) -> Found:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
