"""The least that a Litestar server can do with a request: read its body, answer with bytes. The yardstick."""

import sys
from typing import Any

from litestar import Litestar, Request, post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from edge.serving import Drain, serve

ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"auto","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"a" * 100 + b'"},"finish_reason":"stop"}]}'
)


@post("/v1/chat/completions")
async def answer(request: Request[Any, Any, Any]) -> ASGIApp:
    """Always the same."""
    await request.body()
    return ASGIResponse(body=ANSWER, media_type="application/json", status_code=200)


if __name__ == "__main__":
    app = Litestar([answer], openapi_config=None, logging_config=None)
    sys.exit(serve(app, Drain(), host="127.0.0.1", port=int(sys.argv[1]), drain_s=0.1))
