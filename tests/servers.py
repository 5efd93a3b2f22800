"""Broken servers: small real ones that refuse, babble, stall or break off. A working edge or Triton is the real one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_STALL_S = 30.0

_WHOLE = {
    "refuses": (500, b'{"error":{"message":"no","type":"server_error"}}'),
    "blames": (400, b'{"error":{"message":"bad n","type":"invalid_request_error","param":"n"}}'),
    "full": (429, b'{"error":{"message":"full"}}'),
    "babbles": (200, b"<html>hello</html>"),
}
_CHUNK = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application whose first path element says how it fails; everything after it is ignored."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    while (await receive()).get("more_body"):
        pass
    if scope["path"].endswith("/health/ready"):  # it looks well, which is why somebody calls it
        await _begin(send, 200)
        await send({"type": "http.response.body"})
        return
    match scope["path"].split("/")[1]:
        case whole if whole in _WHOLE:
            await _begin(send, _WHOLE[whole][0])
            await send({"type": "http.response.body", "body": _WHOLE[whole][1]})
        case "stalls":
            await asyncio.sleep(_STALL_S)
        case "starves":
            await _begin(send, 200)
            await _push(send, _CHUNK)
            await asyncio.sleep(_STALL_S)
        case "breaks":
            await _begin(send, 200)
            await _push(send, _CHUNK)
            raise ConnectionAbortedError
        case "mutters":
            await _begin(send, 200)
            await _push(send, _CHUNK + b'event: error\ndata: {"error":{"message":"lost it"}}\n\n')
            await send({"type": "http.response.body"})


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free loopback port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="auto"))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True


async def _begin(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})


async def _push(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
