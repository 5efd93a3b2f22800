"""
One call of Triton's `chat` on a gRPC stream of its own, that can be left at any moment.

A reader task owns the stream, so a caller that is cancelled does not cancel the gRPC call with it: up to Triton 25.03
that can kill the server (github.com/triton-inference-server/server/pull/8078). Who leaves early instead has our `chat`
told to end the request (`cloud.wire.CHAT_CANCEL`), with everybody who leaves at the same time; with `cancel: call` the
gRPC call is cancelled, which every model understands.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc
from tritonclient.grpc import InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from cloud.wire import CHAT_CANCEL, ChatInput, ChatOutput
from router.backends.triton_tensors import say_text

GRACE_S: Final = 5.0
"""Triton ends work at its deadline and says so; only a server that does not is cut off, this much later."""
_MOST_LEAVING: Final = 256


class Leavers:
    """Tells our `chat` which requests shall end. `work` belongs in a task group.

    One message for all that leave while the last one is on its way: messages one by one are what takes long when a
    crowd leaves.
    """

    def __init__(self, client: InferenceServerClient, model: str) -> None:
        self._client = client
        self._model = model
        self._ids: asyncio.Queue[str] = asyncio.Queue()

    def add(self, request_id: str) -> None:
        """Have a request ended soon."""
        self._ids.put_nowait(request_id)

    async def work(self) -> None:
        """Tell, until cancelled."""
        while True:
            ids = [await self._ids.get()]
            while len(ids) < _MOST_LEAVING and not self._ids.empty():
                ids.append(self._ids.get_nowait())
            with suppress(InferenceServerException, grpc.aio.AioRpcError):  # a server that is gone does no work
                async for _ in self._client.stream_infer(self._message(ids), stream_timeout=GRACE_S):
                    pass

    async def _message(self, ids: list[str]) -> AsyncIterator[dict[str, Any]]:
        yield {
            "model_name": self._model,
            "inputs": [say_text(ChatInput.TEXT_INPUT, b"")],
            "parameters": {CHAT_CANCEL: ",".join(ids)},
        }


class ChatCall:
    """See the module. `read` belongs in a task group; `receive` and `leave` to the caller."""

    def __init__(
        self, client: InferenceServerClient, request: dict[str, Any], leavers: Leavers | None, headers: dict[str, str]
    ) -> None:
        """Without `leavers` the gRPC call is cancelled; `headers` are gRPC metadata."""
        # an id of our own: one that a client chose could end another client's request
        self._id = secrets.token_hex(16)
        self._request = {**request, "request_id": self._id, "outputs": list(map(_wanted, ChatOutput))}
        self._client = client
        self._leavers = leavers
        self._headers = headers
        self._received: asyncio.Queue[Any] = asyncio.Queue()  # results, at most one error, None
        self._over = False
        self._reader: asyncio.Task[None] | None = None

    async def read(self, timeout_s: float | None) -> None:
        """Read the stream to its end."""
        if self._over:
            return
        self._reader = asyncio.current_task()
        limit_s = None if timeout_s is None else timeout_s + GRACE_S
        try:
            results = self._client.stream_infer(self._requests(), stream_timeout=limit_s, headers=self._headers)
            async for result, error in results:
                self._over = self._over or error is not None or _is_final(result)
                self._received.put_nowait(error or result)
        except (InferenceServerException, grpc.aio.AioRpcError) as exc:
            self._received.put_nowait(exc)
        finally:
            self._over = True
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
        over, self._over = self._over, True
        if over or self._reader is None:
            return
        if self._leavers is None:
            self._reader.cancel()
        else:
            self._leavers.add(self._id)

    async def _requests(self) -> AsyncIterator[dict[str, Any]]:
        yield self._request


def _wanted(name: ChatOutput) -> InferRequestedOutput:
    return InferRequestedOutput(name)


def _is_final(result: InferResult) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)
