"""tritonclient as the tests use it: tensors in, plain values out."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient

from cloud.wire import (
    CHAT_CANCEL,
    CHAT_PRIORITY,
    ChatInput,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
    ErrorCode,
    TokenChoice,
    decode_error,
    decode_logprobs,
)

NOTHING: Mapping[str, bool | str] = MappingProxyType({})
ALL_RETURNED: Mapping[str, bool | str] = {name.value: True for name in ChatInput if name.startswith("return_")}


class AnswerError(Exception):
    def __init__(self, code: ErrorCode | None, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Response:
    """One response of `chat`; what was not sent is None."""

    texts: list[str]
    finish_reasons: list[str] | None
    cumulative_logprobs: list[float] | None
    logprobs: list[list[TokenChoice]] | None
    num_input_tokens: int | None
    num_output_tokens: list[int] | None

    @property
    def text(self) -> str:
        (text,) = self.texts
        return text


class _Client:
    def __init__(self, address: str) -> None:
        self.triton = InferenceServerClient(address)
        self.tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.__aexit__(kind, error, trace)
        await self.triton.close()


class ChatClient(_Client):
    async def ask(
        self, text: str = "Hi", *, sampling: dict[str, Any] | None = None, inputs: Mapping[str, bool | str] = NOTHING
    ) -> Response:
        """The one response to a request that does not stream."""
        (response,) = [each async for each in self.stream(text, inputs, sampling=sampling, stream=False)]
        return response

    async def stream(
        self,
        text: str | bytes = "Hi",
        inputs: Mapping[str, bool | str] = NOTHING,
        *,
        sampling: dict[str, Any] | None = None,
        stream: bool = True,
        priority: int = 0,
        timeout_us: int | None = None,
        request_id: str | None = None,
        hang_up: bool = False,
    ) -> AsyncGenerator[Response, None]:
        """Responses as they come. Who leaves early tells the model so, or with `hang_up` cancels the call."""
        given = {"text_input": text, "stream": stream, "exclude_input_in_output": True, **inputs}
        if sampling is not None:
            given["sampling_parameters"] = json.dumps(sampling)
        request = {
            "model_name": "chat",
            "inputs": [_input(name, value) for name, value in given.items()],
            "request_id": request_id or uuid4().hex,
            "timeout": timeout_us,
            "parameters": {CHAT_PRIORITY: priority} if priority else None,
        }
        call = _Call(request)
        reading = self.tasks.create_task(call.read(self.triton))
        try:
            while (received := await call.received.get()) is not None:
                if isinstance(received, AnswerError):
                    raise received
                yield received
        finally:
            call.over.set()
            if hang_up:
                reading.cancel()

    async def end(self, *request_ids: str) -> None:
        """Have requests ended, in one message on a stream of its own."""
        async for _ in self.triton.stream_infer(_once(_ending(",".join(request_ids)))):
            pass


class _Call:
    """
    One stream: the request and, if the client leaves before the answer is complete, its end.

    Read by a task of its own: cancelling whoever waits for gRPC's next message would cancel the call.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._complete = False
        self.over = asyncio.Event()
        """No more is wanted."""
        self.received: asyncio.Queue[Response | AnswerError | None] = asyncio.Queue()

    async def read(self, triton: InferenceServerClient) -> None:
        """Read to the end, whatever happens to the client."""
        async for result, error in triton.stream_infer(self._requests()):
            self._complete = error is not None or _is_final(result)
            if self._complete:
                self.over.set()
            self.received.put_nowait(AnswerError(*decode_error(error.message())) if error else _response(result))
        self.received.put_nowait(None)

    async def _requests(self) -> AsyncIterator[dict[str, Any]]:
        yield self._request
        await self.over.wait()
        if not self._complete:
            yield _ending(self._request["request_id"])


def _ending(request_ids: str) -> dict[str, Any]:
    return {
        "model_name": "chat",
        "inputs": [_input("text_input", "")],
        "parameters": {CHAT_CANCEL: request_ids},
    }


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


def _is_final(result: InferResult) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


class EmbedClient(_Client):
    async def embed(self, text: str | None = None, *, token_ids: list[int] | None = None, **options: Any) -> Any:
        """The vector and the number of tokens."""
        inputs = []
        if text is not None:
            inputs.append(_tensor(EmbedInput.TEXT, np.array([[text.encode()]], dtype=np.object_), "BYTES"))
        if token_ids is not None:
            inputs.append(_tensor(EmbedInput.TOKEN_IDS, np.array([token_ids], np.int64), "INT64"))
        result = await self.triton.infer("embed", inputs, **options)
        vector, count = result.as_numpy(EmbedOutput.EMBEDDING), result.as_numpy(EmbedOutput.NUM_INPUT_TOKENS)
        return vector[0], int(count[0, 0])


class Metrics:
    """Triton's metrics port."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/metrics"

    async def read(self, name: str, **labels: str) -> float:
        async with httpx.AsyncClient() as client:
            lines = (await client.get(self._url)).text.splitlines()
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        (found,) = [line for line in lines if line.startswith(name + "{") and all(each in line for each in wanted)]
        return float(found.rsplit(" ", 1)[1])

    async def wait_for(self, value: float, name: str, within_s: float = 5.0, **labels: str) -> None:
        limit = time.monotonic() + within_s
        while (found := await self.read(name, **labels)) != value:
            assert time.monotonic() < limit, f"{name} {labels} is {found}, not {value}"
            await asyncio.sleep(0.02)


def _input(name: str, value: bool | str | bytes) -> InferInput:
    if isinstance(value, bool):
        return _tensor(name, np.array([value]), "BOOL")
    encoded = value.encode() if isinstance(value, str) else value
    return _tensor(name, np.array([encoded], dtype=np.object_), "BYTES")


def _tensor(name: str, values: "np.ndarray[Any, Any]", datatype: str) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def _response(result: InferResult) -> Response:
    def read(name: ChatOutput) -> list[Any] | None:
        array = result.as_numpy(name)
        return None if array is None else array.tolist()

    texts, finish_reasons, logprobs = map(read, (ChatOutput.TEXT_OUTPUT, ChatOutput.FINISH_REASON, ChatOutput.LOGPROBS))
    input_tokens = read(ChatOutput.NUM_INPUT_TOKENS)
    return Response(
        [text.decode() for text in texts or []],
        finish_reasons and [reason.decode() for reason in finish_reasons],
        read(ChatOutput.CUMULATIVE_LOGPROB),
        logprobs and [decode_logprobs(each) for each in logprobs],
        input_tokens[0] if input_tokens else None,
        read(ChatOutput.NUM_OUTPUT_TOKENS),
    )
