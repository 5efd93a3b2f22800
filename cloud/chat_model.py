"""
The `chat` model as Triton's Python backend runs it: a decode loop behind the contract of the vLLM backend.

Three threads: Triton's calls `execute`, the generator's decodes, the responder's talks to the clients. So a slow client
holds up no decode step, and a request's responses come from one thread only.
"""

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from cloud.chat_metrics import ChatMetrics
from cloud.chat_reply import Reply
from cloud.chat_request import ChatRequest, cancelled_ids, read_request
from cloud.config import ChatConfig, read_settings
from cloud.execution import open_artifact, session_config
from cloud.request_log import RequestLog
from cloud.responder import Exchange, LeftError, Responder
from cloud.wire import MOST_TOKENS, ChatOutput, ErrorCode, SamplingParameters, encode_error
from edge.engine.artifact import ArtifactKind
from edge.engine.decoder import Decoder
from edge.engine.errors import EngineError, ExpiredError, OverloadedError, RequestError, StoppedError
from edge.engine.events import Failure
from edge.engine.generator import Generator
from edge.engine.sampling import Sampling
from edge.engine.tokens import Tokenizer


class ChatModel:
    """What Triton calls a `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that `cloud.config.ChatConfig` in `args["model_config"]` names."""
        settings = read_settings(args["model_config"], ChatConfig)
        artifact = open_artifact(settings, ArtifactKind.CHAT, args["model_config"])
        self._tokenizer = Tokenizer(artifact.file("tokenizer.json"))
        decoder = Decoder(artifact.path, session_config(settings), slots=settings.slots)
        self._generator = Generator(decoder, self._tokenizer, waiting=settings.backlog)
        self._metrics = ChatMetrics(args["model_name"])
        log = RequestLog(args["model_name"])
        self._responder = Responder(lambda: self._metrics.publish(self._generator.statistics()), log.write)
        self._running = ExitStack()
        self._running.enter_context(self._responder)
        self._running.enter_context(self._generator)

    def execute(self, requests: list[Any]) -> None:
        """Take `requests`; they are answered through their response senders."""
        arrived = time.monotonic()  # deadlines count from here: a grammar that is compiled below takes its time
        for request in requests:
            sender = TritonSender(request.get_response_sender())
            try:
                if (unwanted := cancelled_ids(request.parameters())) is None:
                    self._begin(request.request_id(), _read(request), sender, arrived)
                else:
                    self._responder.cancel(unwanted)
                    sender.end()
            except EngineError as exc:
                sender.fail(exc)

    def finalize(self) -> None:
        """Stop; whatever still runs is told so."""
        self._running.close()

    def _begin(self, request_id: str, request: ChatRequest, sender: "TritonSender", arrived: float) -> None:
        prompt = _prompt_tokens(self._tokenizer, request.prompt)
        deadline = None if request.timeout_s is None else arrived + request.timeout_s
        generations = [self._generator.prepare(prompt, sampling) for sampling in _samplings(request)]
        reply = Reply(request, len(prompt))
        exchange = Exchange(request_id, sender, reply, generations, request.stream, request.asked_as, arrived)
        self._responder.watch(exchange)
        for index, generation in enumerate(generations):
            deliver = partial(self._responder.post, exchange, index)
            try:
                self._generator.begin(generation, deliver, priority=request.priority, deadline=deadline)
            except EngineError as exc:
                # From `watch` on, only the responder speaks to the client.
                deliver(Failure(exc))
                return


class TritonSender:
    """See `cloud.responder.Sender`."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, tensors: dict[ChatOutput, NDArray[Any]], *, final: bool) -> None:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(name.value, array) for name, array in tensors.items()])
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)

    def fail(self, error: EngineError) -> None:
        code = _error_code(error)
        failure = pb_utils.TritonError(encode_error(code, str(error)), _triton_code(code))
        response = pb_utils.InferenceResponse(error=failure)
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def end(self) -> None:
        """Send nothing but the end."""
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())


def _error_code(error: EngineError) -> ErrorCode:
    match error:
        case RequestError():
            return ErrorCode.INVALID_ARGUMENT
        case OverloadedError():
            return ErrorCode.RESOURCE_EXHAUSTED
        case ExpiredError():
            return ErrorCode.DEADLINE_EXCEEDED
        case LeftError():
            return ErrorCode.CANCELLED
        case StoppedError():
            return ErrorCode.UNAVAILABLE
        case _:
            return ErrorCode.INTERNAL


def _triton_code(code: ErrorCode) -> Any:
    """Triton knows fewer; over HTTP they become statuses."""
    codes = pb_utils.TritonError
    match code:
        case ErrorCode.INVALID_ARGUMENT:
            return codes.INVALID_ARG
        case ErrorCode.RESOURCE_EXHAUSTED | ErrorCode.DEADLINE_EXCEEDED | ErrorCode.UNAVAILABLE:
            return codes.UNAVAILABLE
        case ErrorCode.CANCELLED:
            return codes.CANCELLED
        case ErrorCode.INTERNAL:
            return codes.INTERNAL


def _read(request: Any) -> ChatRequest:
    tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    return read_request(tensors, request.parameters(), request.timeout())


def _prompt_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """
    Encode `text` with the tokenizer's special tokens, as vLLM does.

    But a rendered chat template may bring its first special token along; it is not doubled.
    """
    plain = tokenizer.encode(text, add_special=False)
    return plain if (special := tokenizer.encode(text))[:2] == plain[:1] * 2 else special


def _samplings(request: ChatRequest) -> list[Sampling]:
    """One for each choice; seeds count up, as vLLM's do."""
    asked = request.sampling
    logprobs = asked.logprobs
    if logprobs is None and ChatOutput.CUMULATIVE_LOGPROB in request.outputs:
        logprobs = 0
    return [
        Sampling(
            max_tokens=None if asked.max_tokens == MOST_TOKENS else asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=None if asked.seed is None else asked.seed + index,
            stop=asked.stops(),
            logprobs=logprobs,
            json_schema=_json_schema(asked),
        )
        for index in range(asked.n)
    ]


class _Guide(msgspec.Struct, forbid_unknown_fields=True):
    json: msgspec.Raw


def _json_schema(asked: SamplingParameters) -> str | None:
    if asked.guided_decoding is None:
        return None
    try:
        guide = msgspec.json.decode(asked.guided_decoding, type=_Guide)
        return bytes(guide.json).decode()
    except msgspec.MsgspecError as exc:
        raise RequestError(f"guided_decoding: {exc}; it takes the JSON text of an object with the key json") from exc
