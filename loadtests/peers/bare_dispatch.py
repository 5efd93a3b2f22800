"""
The least that a Litestar server can do to pass a request on: its body, as it is, straight to a transport of httpx's
types, and the answer back; a stream piece by piece as it comes. With httpx-aiohttp's transport, the fastest that there
is to install, it is the yardstick of a dispatch; with the router's own it shows what that one brings.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport
from litestar import Litestar, Request, post
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import ASGIApp

from edge.serving import Drain, serve
from loadtests.peers.upstream import CHAT_URL
from router.backends.transport import PooledTransport

OWN_TRANSPORT = "--own-transport"
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}
_TIMEOUT = {"timeout": {"connect": 10.0, "read": 60.0, "pool": 60.0}}
_CONNECTIONS = 1024


def create_app(upstream: str, *, own_transport: bool) -> Litestar:
    """The handler; `upstream` is a URL without a path."""
    url = upstream + CHAT_URL

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with _make_transport(upstream, own=own_transport) as transport:
            app.state.transport = transport
            yield

    @post(CHAT_URL)
    async def dispatch(request: Request[Any, Any, Any]) -> ASGIApp:
        call = httpx.Request("POST", url, headers=_HEADERS, content=await request.body(), extensions=_TIMEOUT)
        response = await request.app.state.transport.handle_async_request(call)
        if response.headers["content-type"] == "application/json":
            content = await response.aread()
            await response.aclose()
            return ASGIResponse(body=content, media_type="application/json", status_code=response.status_code)
        return ASGIStreamingResponse(
            iterator=_pieces(response), media_type="text/event-stream", status_code=response.status_code
        )

    return Litestar([dispatch], lifespan=[lifespan], openapi_config=None, logging_config=None)


def _make_transport(upstream: str, *, own: bool) -> httpx.AsyncBaseTransport:
    if own:
        return PooledTransport(httpx.URL(upstream), _CONNECTIONS)
    return AiohttpTransport(limits=httpx.Limits(max_connections=_CONNECTIONS))


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    finally:
        await response.aclose()


if __name__ == "__main__":
    app = create_app(sys.argv[2], own_transport=OWN_TRANSPORT in sys.argv[3:])
    sys.exit(serve(app, Drain(), host="127.0.0.1", port=int(sys.argv[1]), drain_s=0.1))
