"""
One call of Triton's `chat` on a gRPC stream of its own, that can be left at any moment.

A reader task owns the stream, so a caller that is cancelled does not cancel the gRPC call with it: up to Triton 25.03
that can kill the server (github.com/triton-inference-server/server/pull/8078). Who leaves early instead sends our
`chat` a request to end the other one (`cloud.wire.CHAT_CANCEL`); with `cancel: call` the gRPC call is cancelled, which
every model understands.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from tritonclient.grpc import InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from cloud.wire import CHAT_CANCEL, ChatInput, ChatOutput
from router.backends.triton_tensors import say_text
from router.config import Cancel

_GRACE_S: Final = 5.0
"""The model ends its work at the deadline and says so; only a server that does not is cut off, this much later."""


class ChatCall:
    """See the module. `read` belongs in a task group; `receive` and `leave` to the caller."""

    def __init__(self, client: InferenceServerClient, request: dict[str, Any], cancel: Cancel) -> None:
        # an id of our own: one that a client chose could end another client's request
        self._request = {**request, "request_id": secrets.token_hex(16), "outputs": list(map(_wanted, ChatOutput))}
        self._client = client
        self._cancel = cancel
        self._received: asyncio.Queue[Any] = asyncio.Queue()  # results, at most one error, None
        self._left = asyncio.Event()
        self._complete = False
        self._reader: asyncio.Task[None] | None = None

    async def read(self, timeout_s: float | None) -> None:
        """Read the stream to its end."""
        if self._left.is_set():
            return
        self._reader = asyncio.current_task()
        limit_s = None if timeout_s is None else timeout_s + _GRACE_S
        responses = self._client.stream_infer(self._requests(), stream_timeout=limit_s)
        try:
            async for result, error in responses:
                if error is not None or _is_final(result):
                    self._complete = True
                    self._left.set()
                self._received.put_nowait(error or result)
        except (InferenceServerException, grpc.aio.AioRpcError) as exc:
            self._received.put_nowait(exc)
        finally:
            self._left.set()
            self._received.put_nowait(None)

    async def receive(self) -> InferResult | None:
        """The next response, None after the last.

        Raises:
            InferenceServerException, AioRpcError: the call failed.
        """
        received: InferResult | Exception | None = await self._received.get()
        if isinstance(received, Exception):
            raise received
        return received

    def leave(self) -> None:
        """Want no more of it; the model stops if it still works."""
        self._left.set()
        if self._cancel is Cancel.CALL and not self._complete and self._reader is not None:
            self._reader.cancel()

    async def _requests(self) -> AsyncIterator[dict[str, Any]]:
        yield self._request
        await self._left.wait()
        if not self._complete and self._cancel is Cancel.REQUEST:
            yield {
                "model_name": self._request["model_name"],
                "inputs": [say_text(ChatInput.TEXT_INPUT, b"")],
                "parameters": {CHAT_CANCEL: self._request["request_id"]},
            }


def _wanted(name: ChatOutput) -> InferRequestedOutput:
    return InferRequestedOutput(name)


def _is_final(result: InferResult) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)
