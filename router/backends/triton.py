"""A Triton server over gRPC: `chat` with the I/O of Triton's vLLM backend (`cloud.wire`), `embed` as ours."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from itertools import product
from typing import Any, Self, TypeVar

import grpc
import msgspec
import numpy as np
from msgspec.structs import replace
from tritonclient.grpc import InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from cloud.wire import (
    CHAT_ASKED_AS,
    CHAT_PRIORITY,
    MODEL_VERSION,
    QUEUE_FULL_TEXT,
    TIMEOUT_TEXT,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
    ErrorCode,
    decode_error,
)
from edge.engine.template import ChatTemplate, TemplateError
from router.backends import join_versions, remaining_s
from router.backends.triton_call import GRACE_S, ChatCall, Leavers
from router.backends.triton_tensors import CollectedAnswer, read_pieces, read_usage, say_chat, say_tensor, split_choices
from router.config import Cancel, TritonTarget
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
_UNSAID = ("UNIMPLEMENTED", "restricted")
_VERSION_S = 30.0
T = TypeVar("T")


class TritonBackend:
    """See `router.backends.Backend`."""

    def __init__(self, name: str, config: TritonTarget, template: ChatTemplate | None) -> None:
        self._name = name
        self._config = config
        self._template = template
        self._client = _connect(config)
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._said = ""
        self._asked_at: float | None = None
        chat = config.chat_model
        self._leavers = Leavers(self._client, chat) if chat and config.cancel is Cancel.REQUEST else None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._leavers is not None:
            self._start(self._leavers.work())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await self._group.__aexit__(None, None, None)
        await self._client.close()

    @property
    def version(self) -> str:
        """Of each model its served versions, and of ours the artifact's identity."""
        return join_versions(self._config.version, self._said)

    async def complete(self, query: Query) -> Completion:
        """All answers, whole."""
        parts: list[CollectedAnswer] = []
        usage = Usage()
        for text in self._render(query):
            answers = [CollectedAnswer() for _ in range(query.parameters.n)]
            async with aclosing(self._generate(text, query, stream=False)) as results:
                async for result in results:
                    for answer, piece in zip(answers, read_pieces(result, query.parameters), strict=True):
                        answer.add(piece)
                    usage += read_usage(result, fresh=True)
            parts += answers
        return Completion([answer.choice() for answer in parts], usage)

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece, one after the other: vLLM's backend streams one choice a request."""
        usage = Usage()
        for index, (text, choice) in enumerate(product(self._render(query), split_choices(query))):
            fresh = index % query.parameters.n == 0
            async with aclosing(self._generate(text, choice, stream=True)) as results:
                async for result in results:
                    usage += read_usage(result, fresh=fresh)
                    fresh = False
                    for piece in read_pieces(result, choice.parameters):
                        if piece.text or piece.logprobs or piece.finish:
                            yield replace(piece, index=index)
        yield Delta(0, usage=usage)

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """One vector an input; Triton's dynamic batcher puts them together again."""
        with self._errors(query.deadline):
            works = [self._detach(self._embed_one(one, query)) for one in query.inputs]
            async with asyncio.timeout(remaining_s(query.deadline)):
                results = await asyncio.gather(*works, return_exceptions=True)
            if failed := next((one for one in results if isinstance(one, BaseException)), None):
                raise failed
        good = [one for one in results if not isinstance(one, BaseException)]
        counts = tuple(tokens for _, tokens in good)
        return Embeddings(tuple(vector for vector, _ in good), sum(counts), counts)

    async def ready(self) -> bool:
        """Whether Triton would take work for every model that we use.

        A call that fails makes the next one ask for the versions again, and so does time.
        """
        asked_at, self._asked_at = self._asked_at, None
        models = [name for name in (self._config.chat_model, self._config.embedding_model) if name]
        try:
            if not all([await self._client.is_model_ready(name) for name in models]):
                return False
            now = time.monotonic()
            if asked_at is None or now >= asked_at + _VERSION_S:
                self._said = join_versions(*[await self._identify(name) for name in models])
                asked_at = now
        except (InferenceServerException, grpc.RpcError):
            return False
        self._asked_at = asked_at
        return True

    async def _identify(self, model: str) -> str:
        """`<model>:<versions>:<identity>`; the stock vLLM backend has no identity. Raises as the client does."""
        served = ",".join((await self._client.get_model_metadata(model)).versions)
        try:
            config = (await self._client.get_model_config(model)).config
        except InferenceServerException as exc:
            if not any(word in str(exc) for word in _UNSAID):
                raise
            return f"{model}:{served}"  # Triton's extension of KServe is missing here, or closed to us
        identity = config.parameters[MODEL_VERSION].string_value if MODEL_VERSION in config.parameters else ""
        return f"{model}:{served}:{identity}"

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

    async def _generate(self, text: str, query: Query, *, stream: bool) -> AsyncGenerator[InferResult, None]:
        timeout_s = remaining_s(query.deadline)
        request = {
            "model_name": self._config.chat_model,
            "inputs": say_chat(text, query.parameters, temperature=self._config.temperature, stream=stream),
            "parameters": {CHAT_PRIORITY: query.priority.rank + 1, CHAT_ASKED_AS: query.request_id},
            "timeout": _microseconds(timeout_s),
        }
        call = ChatCall(self._client, request, self._leavers, query.trace_headers)
        self._start(call.read(timeout_s))
        try:
            with self._errors(query.deadline):
                while True:
                    async with asyncio.timeout(remaining_s(query.deadline)):
                        result = await call.receive()
                    if result is None:
                        return
                    if result.as_numpy(ChatOutput.TEXT_OUTPUT) is not None:
                        yield result
        finally:
            call.leave()

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
            timeout=_microseconds(timeout_s),
            client_timeout=None if timeout_s is None else timeout_s + GRACE_S,
            headers=query.trace_headers,
        )
        vector = result.as_numpy(EmbedOutput.EMBEDDING)
        tokens = result.as_numpy(EmbedOutput.NUM_INPUT_TOKENS)
        if vector is None or tokens is None:
            raise BackendError(f"{self._name} sent no {EmbedOutput.EMBEDDING}.")
        return np.ascontiguousarray(vector, "<f4").tobytes(), int(tokens.reshape(-1)[0])

    @contextmanager
    def _errors(self, deadline: float | None) -> Iterator[None]:
        """`triton_errors`; a server that a call did not reach may be another one when the next probe finds it."""
        try:
            with triton_errors(self._name, deadline):
                yield
        except UnavailableError:
            self._asked_at = None
            raise

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _detach(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run `work` to its end, whoever leaves meanwhile, unless a cancelled gRPC call is safe for the server."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except Exception as exc:  # noqa: BLE001 - handed over whole; the group must not end for it
                if not outcome.done():
                    outcome.set_exception(exc)
            else:
                if not outcome.done():
                    outcome.set_result(result)

        task = self._start(run())
        if self._config.cancel is Cancel.CALL:
            outcome.add_done_callback(lambda done: done.cancelled() and task.cancel())
        return outcome


def _connect(config: TritonTarget) -> InferenceServerClient:
    """The one channel of every call to this target, unary or stream."""
    if config.tls is None:
        return InferenceServerClient(config.address)
    return InferenceServerClient(
        config.address,
        ssl=True,
        root_certificates=str(config.tls.ca_file),
        certificate_chain=str(config.tls.certificate_file),
        private_key=str(config.tls.key_file),
    )


@contextmanager
def triton_errors(name: str, deadline: float | None = None) -> Iterator[None]:
    """The one door through which gRPC's and tritonclient's errors enter.

    `deadline`, the query's, tells its own end from that of Triton's patience with its queue.

    Raises:
        BackendError: or one below it, or `OverloadedError`.
    """
    try:
        yield
    except InferenceServerException as exc:
        if exc.status() is None:  # an error in the stream, which has no gRPC status
            code, text = decode_error(exc.message() or "")
            raise _translate(name, code, text, deadline, from_peer=True) from exc
        from_peer = _FROM_PEER in str(exc.debug_details())
        raise _translate(name, _code(str(exc.status())), exc.message() or "", deadline, from_peer=from_peer) from exc
    except grpc.aio.AioRpcError as exc:
        from_peer = _FROM_PEER in (exc.debug_error_string() or "")
        raise _translate(name, _code(str(exc.code())), exc.details() or "", deadline, from_peer=from_peer) from exc
    except TimeoutError as exc:
        raise DeadlineError(f"{name} did not answer within the request's deadline.") from exc
    except (msgspec.ValidationError, ValueError) as exc:
        raise BackendError(f"{name} sent an answer we cannot read: {exc}.") from exc


def _code(status: str) -> ErrorCode | None:
    """gRPC's status, of those that our `chat` spells the same way in its error texts."""
    name = status.removeprefix("StatusCode.")
    return ErrorCode(name) if name in ErrorCode.__members__ else None


def _translate(
    name: str, code: ErrorCode | None, message: str, deadline: float | None, *, from_peer: bool
) -> RouterError:
    """`from_peer` tells a server that says "unavailable" from one that cannot be reached."""
    expired = deadline is not None and time.monotonic() >= deadline
    if code is ErrorCode.DEADLINE_EXCEEDED or (expired and TIMEOUT_TEXT in message):
        return DeadlineError(f"{name} did not answer within the request's deadline.")
    if code is ErrorCode.RESOURCE_EXHAUSTED or TIMEOUT_TEXT in message or QUEUE_FULL_TEXT in message:
        return OverloadedError(f"{name} has no room: {message}")
    match code:
        case ErrorCode.INVALID_ARGUMENT:
            return RefusedError(f"{name} refused the request: {message}")
        case ErrorCode.UNAVAILABLE if not from_peer:
            return UnavailableError(f"{name} cannot be reached.")
        case _:
            return BackendError(f"{name} failed: {message}")


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e6)
