"""
What the router and Triton say to each other: tensor names, sampling parameters, log probabilities.

`chat` speaks the contract of Triton's vLLM backend, so that the stock backend can take its place. Source:
github.com/triton-inference-server/vllm_backend, `src/model.py` at 00ea75bc67f48ad7c6283b1983620e1dbb1a9cfe (tensors)
and `src/utils/request.py` at 11c4e0fd7c6e22c0b451d74adcd51ee70d1d4115 (what they hold). Facts that the names do not
tell:

* `chat` is decoupled: over gRPC only `ModelStreamInfer` reaches it. One response per request unless `stream` is true.
* While streaming, every output is the increment since the last response, except `cumulative_logprob`, the sum so far,
  and `num_input_tokens`. `finish_reason` is the text `None` until the last response. The stream may end with a response
  that holds no tensor but the final flag.
* `text_input` is repeated before `text_output` unless `exclude_input_in_output` is true; streaming implies true.
* Outputs hold one element per choice (`n`), except `num_input_tokens`, which the stock backend sends as a scalar.
* The KServe parameter `timeout` (microseconds, 0 or none means no limit) bounds waiting and generating together.
* An error in a stream is a text without a status. Ours starts with one of `ErrorCode`; the stock backend's does not.
  (The header `triton_grpc_error` asks Triton for gRPC statuses instead, but tritonserver 2.51 dies of SIGSEGV when a
  stream that had an error is followed by others.)

`embed` is ours: one text or one list of token ids in, one L2-normed vector out.
"""

import json
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

CHAT_MODEL: Final = "chat"
EMBED_MODEL: Final = "embed"

MODEL_VERSION: Final = "model_version"
"""Parameter in the configuration of our models: the identity of the artifact behind it."""

EMBEDDING_WIDTH: Final = 384

LOWEST_LOGPROB: Final = -9999.0
"""Stands for minus infinity, which JSON cannot say; OpenAI uses the same number."""

MOST_CHOICES: Final = 16
MOST_LOGPROBS: Final = 20
MOST_TOKENS: Final = 1_000_000
"""More than any context holds: generate up to the end of the context."""

TIMEOUT_TEXT: Final = "Request timeout expired"
"""
What Triton says when a request's `timeout` passes in the queue of `embed`, or the longest wait of `embed/config.pbtxt`,
if that is shorter; its gRPC status is UNAVAILABLE.
"""
QUEUE_FULL_TEXT: Final = "Exceeds maximum queue size"
"""What Triton says when the queue of `embed` is full; its gRPC status is UNAVAILABLE too."""


class ChatInput(StrEnum):
    TEXT_INPUT = "text_input"
    IMAGE = "image"
    STREAM = "stream"
    SAMPLING_PARAMETERS = "sampling_parameters"
    EXCLUDE_INPUT_IN_OUTPUT = "exclude_input_in_output"
    RETURN_FINISH_REASON = "return_finish_reason"
    RETURN_CUMULATIVE_LOGPROB = "return_cumulative_logprob"
    RETURN_LOGPROBS = "return_logprobs"
    RETURN_NUM_INPUT_TOKENS = "return_num_input_tokens"
    RETURN_NUM_OUTPUT_TOKENS = "return_num_output_tokens"
    EMBEDDING_REQUEST = "embedding_request"


class ChatOutput(StrEnum):
    TEXT_OUTPUT = "text_output"
    FINISH_REASON = "finish_reason"
    CUMULATIVE_LOGPROB = "cumulative_logprob"
    LOGPROBS = "logprobs"
    NUM_INPUT_TOKENS = "num_input_tokens"
    NUM_OUTPUT_TOKENS = "num_output_tokens"


class EmbedInput(StrEnum):
    """A request sets exactly one of these."""

    TEXT = "text"
    TOKEN_IDS = "token_ids"  # noqa: S105 - the other sort of token


class EmbedOutput(StrEnum):
    EMBEDDING = "embedding"
    NUM_INPUT_TOKENS = "num_input_tokens"


PRIORITY_LEVELS: Final = 3
"""`embed` obeys the KServe parameter `priority`: 1 is served first, 3 last, 0 or none means `DEFAULT_PRIORITY`."""

DEFAULT_PRIORITY: Final = 2

CHAT_PRIORITY: Final = "chat_priority"
"""Custom request parameter of `chat`, with the values of `priority`, which Triton hides from Python models."""

CHAT_ASKED_AS: Final = "chat_asked_as"
"""Custom request parameter of `chat`: the id by which the router's log and ours know a request."""

CHAT_CANCEL: Final = "chat_cancel"
"""
Custom request parameter of `chat`: the ids of requests that shall end, separated by commas. The request that carries it
(with an empty `text_input`, on any stream) gets an empty last response, the others the error `CANCELLED`. It may
overtake a request that it ends, so ids are not to be used again.

Cancelling the gRPC call works too, but can kill tritonserver 2.51: about once in some thousand times while tokens flow
fast, and far more often just after an error or the last response. (The race was fixed in March 2025 by
github.com/triton-inference-server/server/pull/8078.) So read a stream to its end once an error came.
"""


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    UNFINISHED = "None"


class ErrorCode(StrEnum):
    """How an error text of `chat` starts, followed by a colon. Named as gRPC's statuses are."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    """All slots are taken and the backlog is full."""
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    """The parameter `timeout` has passed."""
    CANCELLED = "CANCELLED"
    UNAVAILABLE = "UNAVAILABLE"
    """The model is stopping."""
    INTERNAL = "INTERNAL"


class SamplingParameters(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    The part of vLLM's `SamplingParams` that the router may send, with vLLM's names and defaults.

    Our `chat` refuses penalties and biases, the stock backend honours them.
    `guided_decoding` is the JSON text of an object with the key `json` (a JSON schema).
    """

    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] = 1
    temperature: Annotated[float, Meta(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Meta(ge=1)] | None = 16
    """None means up to the end of the context."""
    stop: list[str] | str | None = None
    seed: int | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    guided_decoding: str | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None

    def stops(self) -> tuple[str, ...]:
        """The stop strings, none of them empty."""
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in texts if text)


class TokenLogprob(Struct, frozen=True):
    token: str
    """The token's own text. Bytes that are no UTF-8 alone read as U+FFFD."""
    logprob: float
    rank: int | None
    """1 is the likeliest token of the vocabulary."""


class TokenChoice(Struct, frozen=True):
    """One generated token and the likeliest tokens of its place."""

    chosen: TokenLogprob
    ranked: tuple[TokenLogprob, ...]
    """Every token reported for the place, the chosen one too, likeliest first."""

    def top(self, count: int) -> tuple[TokenLogprob, ...]:
        """The `count` likeliest; the chosen one is among them only when it ranks so high."""
        return tuple(entry for entry in self.ranked if entry.rank is None or entry.rank <= count)[:count]


class _Entry(Struct, frozen=True):
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


def encode_sampling_parameters(parameters: SamplingParameters) -> bytes:
    if parameters.max_tokens is None:
        # The stock backend drops null, and would stop after vLLM's default of 16 tokens.
        parameters = msgspec.structs.replace(parameters, max_tokens=MOST_TOKENS)
    return msgspec.json.encode(parameters)


def decode_logprobs(encoded: bytes) -> list[TokenChoice]:
    """
    Read one element of the `logprobs` tensor; `null` (no log probabilities were asked for) reads as an empty list.

    A JSON array with, for each token, an object `{token id: {logprob, rank, decoded_token}}` whose first key is the
    chosen token (vLLM V1 writes it first). Raises `msgspec.ValidationError` or `ValueError` when it is anything else.
    """
    # The standard library's reader, because the stock backend writes `-Infinity`.
    places = msgspec.convert(json.loads(encoded), type=list[dict[str, _Entry]] | None)
    return [_token_choice(place) for place in places or []]


def encode_error(code: ErrorCode, text: str) -> str:
    return f"{code}: {text}"


def decode_error(message: str) -> tuple[ErrorCode | None, str]:
    """Split an error text of `chat`; the code is None when the text is not ours."""
    code, separator, text = message.partition(": ")
    if separator and code in ErrorCode.__members__:
        return ErrorCode(code), text
    return None, message


def _token_choice(place: dict[str, _Entry]) -> TokenChoice:
    if not place:
        raise ValueError("a token without log probabilities")
    entries = [
        TokenLogprob(entry.decoded_token or "", max(entry.logprob, LOWEST_LOGPROB), entry.rank)
        for entry in place.values()
    ]
    return TokenChoice(entries[0], tuple(sorted(entries, key=lambda entry: -entry.logprob)))


def encode_logprobs(places: list[dict[int, TokenLogprob]]) -> bytes:
    """Write one element of the `logprobs` tensor. `places` maps token ids, the chosen one first, to what is known."""
    return msgspec.json.encode(
        [
            {
                str(token_id): _Entry(max(entry.logprob, LOWEST_LOGPROB), entry.rank, entry.token)
                for token_id, entry in place.items()
            }
            for place in places
        ]
    )
