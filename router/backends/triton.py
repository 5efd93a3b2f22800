"""
A Triton server over gRPC: `chat` with the I/O of Triton's vLLM backend (`cloud.wire`), `embed` as ours.

One gRPC stream per request: cancelling one that is shared would cancel its neighbours.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgspec
import numpy as np
from edge.engine.template import ChatTemplate, TemplateError
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from cloud.wire import (
    STATUS_HEADER,
    TIMEOUT_TEXT,
    ChatInput,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
    FinishReason,
    SamplingParameters,
    decode_logprobs,
    encode_sampling_parameters,
)
from router.backends import remaining_s
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
    Choice,
    Completion,
    Conversation,
    Delta,
    EmbeddingQuery,
    Embeddings,
    Finish,
    JsonFormat,
    Parameters,
    Query,
    TokenLogprob,
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
        parts: list[_Answer] = []
        usage = Usage()
        for text in self._render(query):
            answers = [_Answer() for _ in range(query.parameters.n)]
            async for result in self._generate(text, query, stream=False):
                for answer, piece in zip(answers, _pieces(result, query.parameters), strict=True):
                    answer.add(piece)
                usage += _usage(result, fresh=True)
            parts += answers
        return Completion([answer.choice() for answer in parts], usage)

    async def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece."""
        usage = Usage()
        for base, text in enumerate(self._render(query)):
            first = True
            async for result in self._generate(text, query, stream=True):
                usage += _usage(result, fresh=first)
                first = False
                for index, piece in enumerate(_pieces(result, query.parameters)):
                    if piece.text or piece.logprobs or piece.finish:
                        yield Delta(base * query.parameters.n + index, piece.text, piece.logprobs, piece.finish)
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
            "inputs": _chat_inputs(text, query.parameters, stream=stream),
            "outputs": [InferRequestedOutput(name) for name in _OUTPUTS],
            "request_id": query.request_id,
            "priority": query.priority.rank + 1,
            "timeout": None if timeout_s is None else int(timeout_s * 1e6),
        }
        with triton_errors(self._name):
            responses = self._client.stream_infer(
                _once(request), stream_timeout=timeout_s, headers=dict([STATUS_HEADER])
            )
            try:
                async for result, error in responses:
                    if error is not None:
                        raise error
                    if result.as_numpy(ChatOutput.TEXT_OUTPUT) is not None:
                        yield result
            finally:
                responses.cancel()

    async def _embed_one(self, one: str | tuple[int, ...], query: EmbeddingQuery) -> tuple[bytes, int]:
        if isinstance(one, str):
            tensor = _tensor(EmbedInput.TEXT, np.array([[one.encode()]], dtype=np.object_), "BYTES")
        else:
            tensor = _tensor(EmbedInput.TOKEN_IDS, np.array([one], dtype=np.int64), "INT64")
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
        raise _translate(name, str(exc.status() or ""), exc.message() or "", str(exc.debug_details() or "")) from exc
    except grpc.aio.AioRpcError as exc:
        raise _translate(name, str(exc.code()), exc.details() or "", exc.debug_error_string() or "") from exc
    except BaseExceptionGroup as group:
        # a TaskGroup's: each failed the same way, or was cancelled because of the first
        with triton_errors(name):
            raise group.exceptions[0] from None
    except (msgspec.ValidationError, ValueError) as exc:
        raise BackendError(f"{name} sent an answer we cannot read: {exc}.") from exc


def _translate(name: str, status: str, message: str, details: str) -> RouterError:
    code = status.removeprefix("StatusCode.")
    if code == "DEADLINE_EXCEEDED" or TIMEOUT_TEXT in message:
        return DeadlineError(f"{name} did not answer within the request's deadline.")
    if code in {"INVALID_ARGUMENT", "UNIMPLEMENTED"}:
        return RefusedError(f"{name} refused the request: {message}")
    if code in {"RESOURCE_EXHAUSTED", "UNAVAILABLE"} and (_FROM_PEER in details or "full" in message):
        return OverloadedError(f"{name} has no room: {message}")
    if code == "UNAVAILABLE":
        return UnavailableError(f"{name} cannot be reached.")
    return BackendError(f"{name} failed: {message}")


@dataclass(slots=True)
class _Answer:
    """One choice as its pieces come in."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, piece: Delta) -> None:
        self.texts.append(piece.text)
        self.logprobs.extend(piece.logprobs)
        self.finish = piece.finish or self.finish

    def choice(self) -> Choice:
        if self.finish is None:
            raise BackendError("The answer ended without a finish reason.")
        return Choice("".join(self.texts), self.finish, tuple(self.logprobs))


def _pieces(result: InferResult, parameters: Parameters) -> list[Delta]:
    texts = _strings(result, ChatOutput.TEXT_OUTPUT)
    reasons = _strings(result, ChatOutput.FINISH_REASON)
    logprobs = _strings(result, ChatOutput.LOGPROBS) if parameters.logprobs else [b"null"] * len(texts)
    return [
        Delta(index, text.decode(), _logprobs(encoded, parameters.top_logprobs), _finish(reason))
        for index, (text, reason, encoded) in enumerate(zip(texts, reasons, logprobs, strict=True))
    ]


def _logprobs(encoded: bytes, top: int) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            place.chosen.token,
            place.chosen.logprob,
            tuple(TokenLogprob(entry.token, entry.logprob) for entry in place.top(top)),
        )
        for place in decode_logprobs(encoded)
    )


def _finish(reason: bytes) -> Finish | None:
    match FinishReason(reason.decode()):
        case FinishReason.UNFINISHED:
            return None
        case FinishReason.ABORT:
            raise BackendError("The target aborted the generation.")
        case other:
            return Finish(other.value)


def _usage(result: InferResult, *, fresh: bool) -> Usage:
    """Output counts are increments; the input's count comes whole with every response."""
    read = result.as_numpy(ChatOutput.NUM_INPUT_TOKENS)
    written = result.as_numpy(ChatOutput.NUM_OUTPUT_TOKENS)
    return Usage(
        int(read.reshape(-1)[0]) if fresh and read is not None else 0,
        int(written.sum()) if written is not None else 0,
    )


def _chat_inputs(text: str, parameters: Parameters, *, stream: bool) -> list[InferInput]:
    flags = {
        ChatInput.STREAM: stream,
        ChatInput.EXCLUDE_INPUT_IN_OUTPUT: True,
        ChatInput.RETURN_FINISH_REASON: True,
        ChatInput.RETURN_NUM_INPUT_TOKENS: True,
        ChatInput.RETURN_NUM_OUTPUT_TOKENS: True,
        ChatInput.RETURN_LOGPROBS: parameters.logprobs,
    }
    sampling = encode_sampling_parameters(_sampling(parameters))
    return [
        _tensor(ChatInput.TEXT_INPUT, np.array([text.encode()], dtype=np.object_), "BYTES"),
        _tensor(ChatInput.SAMPLING_PARAMETERS, np.array([sampling], dtype=np.object_), "BYTES"),
        *(_tensor(name, np.array([flag]), "BOOL") for name, flag in flags.items()),
    ]


def _sampling(parameters: Parameters) -> SamplingParameters:
    # vLLM's own default is 16 tokens; null means "up to the end of the context", as OpenAI's absent max_tokens does
    return SamplingParameters(
        n=parameters.n,
        temperature=1.0 if parameters.temperature is None else parameters.temperature,
        top_p=1.0 if parameters.top_p is None else parameters.top_p,
        max_tokens=parameters.max_tokens,
        stop=list(parameters.stop) or None,
        seed=parameters.seed,
        logprobs=parameters.top_logprobs if parameters.logprobs else None,
        frequency_penalty=parameters.frequency_penalty,
        presence_penalty=parameters.presence_penalty,
        logit_bias=parameters.logit_bias or None,
        guided_decoding=_guide(parameters.json_format),
    )


def _guide(wanted: JsonFormat | None) -> str | None:
    if wanted is None:
        return None
    schema: Any = msgspec.json.decode(wanted.schema) if wanted.schema else {"type": "object"}
    return msgspec.json.encode({"json": schema}).decode()


def _strings(result: InferResult, name: ChatOutput) -> list[bytes]:
    array = result.as_numpy(name)
    if array is None:
        raise BackendError(f"The target sent no {name}.")
    return [bytes(one) for one in array.reshape(-1)]


def _tensor(name: str, values: "np.ndarray[Any, Any]", datatype: str) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request
