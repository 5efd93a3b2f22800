"""
A Triton server over gRPC: `chat` with the I/O of Triton's vLLM backend (`cloud.wire`), `embed` as ours.

One gRPC stream per request: cancelling one that is shared would cancel its neighbours.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import grpc
import msgspec
import numpy as np
from tritonclient.grpc import InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from cloud.wire import (
    TIMEOUT_TEXT,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
    ErrorCode,
    decode_error,
)
from edge.engine.template import ChatTemplate, TemplateError
from router.backends import remaining_s
from router.backends.triton_tensors import CollectedAnswer, read_pieces, read_usage, say_chat, say_tensor, split_choices
from router.config import TritonTarget
from router.errors import (
    BackendError,
    DeadlineError,
    OverloadedError,
    RefusedError,
    RouterError,
    UnavailableError,
)
from router.query import (
    Completion,
    Conversation,
    Delta,
    EmbeddingQuery,
    Embeddings,
    Query,
    Usage,
)

_FROM_PEER = "Error received from peer"
_OUTPUTS = tuple(ChatOutput)


class TritonBackend:
    """See `router.backends.Backend`."""

    def __init__(self, name: str, config: TritonTarget, template: ChatTemplate | None) -> None:
        self._name = name
        self._config = config
        self._template = template
        self._client = InferenceServerClient(config.address)

    async def complete(self, query: Query) -> Completion:
        """All answers, whole."""
        parts: list[CollectedAnswer] = []
        usage = Usage()
        for text in self._render(query):
            answers = [CollectedAnswer() for _ in range(query.parameters.n)]
            async for result in self._generate(text, query, stream=False):
                for answer, piece in zip(answers, read_pieces(result, query.parameters), strict=True):
                    answer.add(piece)
                usage += read_usage(result, fresh=True)
            parts += answers
        return Completion([answer.choice() for answer in parts], usage)

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece, one after the other: vLLM's backend streams one choice a request."""
        usage = Usage()
        for index, (text, choice) in enumerate(product(self._render(query), split_choices(query))):
            first = True
            async for result in self._generate(text, choice, stream=True):
                usage += read_usage(result, fresh=first and index % query.parameters.n == 0)
                first = False
                for piece in read_pieces(result, choice.parameters):
                    if piece.text or piece.logprobs or piece.finish:
                        yield replace(piece, index=index)
        yield Delta(0, usage=usage)

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """One vector an input; Triton's dynamic batcher puts them together again."""
        with triton_errors(self._name):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._embed_one(one, query)) for one in query.inputs]
        results = [task.result() for task in tasks]
        return Embeddings(tuple(vector for vector, _ in results), sum(tokens for _, tokens in results))

    async def ready(self) -> bool:
        """Whether Triton would take work for every model that we use."""
        models = [name for name in (self._config.chat_model, self._config.embedding_model) if name]
        try:
            return all([await self._client.is_model_ready(name) for name in models])
        except (InferenceServerException, grpc.RpcError):
            return False

    async def close(self) -> None:
        """Give the connection back."""
        await self._client.close()

    def _render(self, query: Query) -> tuple[str, ...]:
        if not isinstance(query.prompt, Conversation):
            return query.prompt.texts
        if self._template is None:
            raise BackendError(f"{self._name} has no chat template configured.")
        turns = [{"role": m.role, "content": m.text} for m in query.prompt.messages]
        try:
            return (self._template.render(turns),)
        except TemplateError as exc:
            raise RefusedError(
                f"{self._name}'s chat template refuses this conversation: {exc}", param="messages"
            ) from exc

    async def _generate(self, text: str, query: Query, *, stream: bool) -> AsyncIterator[InferResult]:
        timeout_s = remaining_s(query.deadline)
        request = {
            "model_name": self._config.chat_model,
            "inputs": say_chat(text, query.parameters, temperature=self._config.temperature, stream=stream),
            "outputs": [InferRequestedOutput(name) for name in _OUTPUTS],
            "request_id": query.request_id,
            "priority": query.priority.rank + 1,
            "timeout": None if timeout_s is None else int(timeout_s * 1e6),
        }
        with triton_errors(self._name):
            responses = self._client.stream_infer(_once(request), stream_timeout=timeout_s)
            try:
                async for result, error in responses:
                    if error is not None:
                        code, text = decode_error(error.message() or "")
                        raise _translate(self._name, code, text, from_peer=True)
                    if result.as_numpy(ChatOutput.TEXT_OUTPUT) is not None:
                        yield result
            finally:
                responses.cancel()

    async def _embed_one(self, one: str | tuple[int, ...], query: EmbeddingQuery) -> tuple[bytes, int]:
        if isinstance(one, str):
            tensor = say_tensor(EmbedInput.TEXT, np.array([[one.encode()]], dtype=np.object_), "BYTES")
        else:
            tensor = say_tensor(EmbedInput.TOKEN_IDS, np.array([one], dtype=np.int64), "INT64")
        timeout_s = remaining_s(query.deadline)
        result = await self._client.infer(
            self._config.embedding_model,
            [tensor],
            request_id=query.request_id,
            priority=query.priority.rank + 1,
            timeout=None if timeout_s is None else int(timeout_s * 1e6),
            client_timeout=timeout_s,
        )
        vector = result.as_numpy(EmbedOutput.EMBEDDING)
        tokens = result.as_numpy(EmbedOutput.NUM_INPUT_TOKENS)
        if vector is None or tokens is None:
            raise BackendError(f"{self._name} sent no {EmbedOutput.EMBEDDING}.")
        return np.ascontiguousarray(vector, "<f4").tobytes(), int(tokens.reshape(-1)[0])


@contextmanager
def triton_errors(name: str) -> Iterator[None]:
    """The one door through which gRPC's and tritonclient's errors enter.

    Raises:
        BackendError: or one below it, or `OverloadedError`.
    """
    try:
        yield
    except InferenceServerException as exc:
        from_peer = _FROM_PEER in str(exc.debug_details())
        raise _translate(name, _code(str(exc.status())), exc.message() or "", from_peer=from_peer) from exc
    except grpc.aio.AioRpcError as exc:
        from_peer = _FROM_PEER in (exc.debug_error_string() or "")
        raise _translate(name, _code(str(exc.code())), exc.details() or "", from_peer=from_peer) from exc
    except BaseExceptionGroup as group:
        # a TaskGroup's: each failed the same way, or was cancelled because of the first
        with triton_errors(name):
            raise group.exceptions[0] from None
    except (msgspec.ValidationError, ValueError) as exc:
        raise BackendError(f"{name} sent an answer we cannot read: {exc}.") from exc


def _code(status: str) -> ErrorCode | None:
    """gRPC's status, of those that our `chat` spells the same way in its error texts."""
    name = status.removeprefix("StatusCode.")
    return ErrorCode(name) if name in ErrorCode.__members__ else None


def _translate(name: str, code: ErrorCode | None, message: str, *, from_peer: bool) -> RouterError:
    """`from_peer` tells a server that says "unavailable" from one that cannot be reached."""
    if code is ErrorCode.DEADLINE_EXCEEDED or TIMEOUT_TEXT in message:
        return DeadlineError(f"{name} did not answer within the request's deadline.")
    match code:
        case ErrorCode.INVALID_ARGUMENT:
            return RefusedError(f"{name} refused the request: {message}")
        case ErrorCode.RESOURCE_EXHAUSTED:
            return OverloadedError(f"{name} has no room: {message}")
        case ErrorCode.UNAVAILABLE if not from_peer:
            return UnavailableError(f"{name} cannot be reached.")
        case _:
            return BackendError(f"{name} failed: {message}")


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request
