"""Between `router.query`'s values and the tensors of Triton's models (`cloud.wire`)."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from tritonclient.grpc import InferInput, InferResult

from cloud.wire import (
    ChatInput,
    ChatOutput,
    FinishReason,
    SamplingParameters,
    decode_logprobs,
    encode_sampling_parameters,
)
from router.errors import BackendError
from router.query import Choice, Delta, Finish, JsonFormat, Parameters, Query, TokenLogprob, Usage


@dataclass(slots=True)
class CollectedAnswer:
    """One choice as its pieces come in."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, piece: Delta) -> None:
        """Take the next piece."""
        self.texts.append(piece.text)
        self.logprobs.extend(piece.logprobs)
        self.finish = piece.finish or self.finish

    def choice(self) -> Choice:
        """The whole.

        Raises:
            BackendError: it has no end.
        """
        if self.finish is None:
            raise BackendError("The answer ended without a finish reason.")
        return Choice("".join(self.texts), self.finish, tuple(self.logprobs))


def split_choices(query: Query) -> list[Query]:
    """A query for each of the `n` answers; seeds count up, as vLLM's do."""
    p = query.parameters
    seeds = [None if p.seed is None else p.seed + k for k in range(p.n)]
    return [replace(query, parameters=replace(p, n=1, seed=seed)) for seed in seeds]


def read_pieces(result: InferResult, parameters: Parameters) -> list[Delta]:
    """What a response adds to each choice.

    Raises:
        BackendError, ValueError: the tensors are not those of the contract.
    """
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


def read_usage(result: InferResult, *, fresh: bool) -> Usage:
    """Output counts are increments; the input's count comes whole with every response."""
    read = result.as_numpy(ChatOutput.NUM_INPUT_TOKENS)
    written = result.as_numpy(ChatOutput.NUM_OUTPUT_TOKENS)
    return Usage(
        int(read.reshape(-1)[0]) if fresh and read is not None else 0,
        int(written.sum()) if written is not None else 0,
    )


def say_chat(text: str, parameters: Parameters, *, temperature: float, stream: bool) -> list[InferInput]:
    """The inputs of `chat`; `temperature` is for parameters that give none."""
    flags = {
        ChatInput.STREAM: stream,
        ChatInput.EXCLUDE_INPUT_IN_OUTPUT: True,
        ChatInput.RETURN_FINISH_REASON: True,
        ChatInput.RETURN_NUM_INPUT_TOKENS: True,
        ChatInput.RETURN_NUM_OUTPUT_TOKENS: True,
        ChatInput.RETURN_LOGPROBS: parameters.logprobs,
    }
    sampling = encode_sampling_parameters(_sampling(parameters, temperature))
    return [
        say_text(ChatInput.TEXT_INPUT, text.encode()),
        say_text(ChatInput.SAMPLING_PARAMETERS, sampling),
        *(say_tensor(name, np.array([flag]), "BOOL") for name, flag in flags.items()),
    ]


def _sampling(parameters: Parameters, temperature: float) -> SamplingParameters:
    # vLLM's own default is 16 tokens; null means "up to the end of the context", as OpenAI's absent max_tokens does
    return SamplingParameters(
        n=parameters.n,
        temperature=temperature if parameters.temperature is None else parameters.temperature,
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


def say_tensor(name: str, values: "np.ndarray[Any, Any]", datatype: str) -> InferInput:
    """One input."""
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def say_text(name: str, text: bytes) -> InferInput:
    """One text, as `chat` takes it."""
    return say_tensor(name, np.array([text], dtype=np.object_), "BYTES")
