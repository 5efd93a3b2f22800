"""Reads a request to `chat` the way Triton's vLLM backend does, but refuses what it cannot honour."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.wire import (
    CHAT_ASKED_AS,
    CHAT_CANCEL,
    CHAT_PRIORITY,
    DEFAULT_PRIORITY,
    PRIORITY_LEVELS,
    ChatInput,
    ChatOutput,
    SamplingParameters,
)
from edge.engine.errors import RequestError


@dataclass(frozen=True, slots=True)
class ChatRequest:
    prompt: str
    stream: bool
    repeats_prompt: bool
    """Whether the answer starts with the prompt."""
    sampling: SamplingParameters
    outputs: frozenset[ChatOutput]
    """What is wanted beyond the text."""
    priority: int
    timeout_s: float | None
    asked_as: str = ""


_LONGEST_ID: Final = 128

_RETURNED: Final = {
    ChatInput.RETURN_FINISH_REASON: ChatOutput.FINISH_REASON,
    ChatInput.RETURN_CUMULATIVE_LOGPROB: ChatOutput.CUMULATIVE_LOGPROB,
    ChatInput.RETURN_LOGPROBS: ChatOutput.LOGPROBS,
    ChatInput.RETURN_NUM_INPUT_TOKENS: ChatOutput.NUM_INPUT_TOKENS,
    ChatInput.RETURN_NUM_OUTPUT_TOKENS: ChatOutput.NUM_OUTPUT_TOKENS,
}

_WITHOUT_EFFECT: Final[dict[str, tuple[Any, ...]]] = {
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "logit_bias": ({},),
    "detokenize": (True,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
}
"""Other members of vLLM's `SamplingParams`, with the values that change nothing and are therefore accepted."""


def cancelled_ids(parameters: str) -> frozenset[str] | None:
    """Return the ids of the requests that this one ends, if it has no other purpose."""
    found = _object(parameters, "parameters").get(CHAT_CANCEL)
    return None if found is None else frozenset(filter(None, str(found).split(",")))


def read_request(tensors: Mapping[str, NDArray[Any]], parameters: str, timeout_us: int) -> ChatRequest:
    """
    Read `tensors` (by name, each of shape `[1]`), the request's `parameters` (JSON) and KServe `timeout` (0: none).

    As in the vLLM backend, sampling parameters come from the tensor of that name, else from the request's parameters.
    Raises `RequestError`, whose text names the input, its value and what is allowed.
    """
    for name in (ChatInput.IMAGE, ChatInput.EMBEDDING_REQUEST):
        if name in tensors:
            raise RequestError(f"{name}: this model reads text only")
    own = _object(parameters, "parameters")
    priority = own.pop(CHAT_PRIORITY, 0)
    if priority not in range(PRIORITY_LEVELS + 1):
        raise RequestError(f"{CHAT_PRIORITY}: {priority!r} is not between 0 and {PRIORITY_LEVELS}")
    asked_as = str(own.pop(CHAT_ASKED_AS, ""))[:_LONGEST_ID]
    if ChatInput.SAMPLING_PARAMETERS in tensors:
        own = _object(_text(tensors, ChatInput.SAMPLING_PARAMETERS), ChatInput.SAMPLING_PARAMETERS)
    stream = _flag(tensors, ChatInput.STREAM, default=False)
    repeats = not _flag(tensors, ChatInput.EXCLUDE_INPUT_IN_OUTPUT, default=stream)
    sampling = _sampling(own)
    if stream and repeats:
        raise RequestError(f"{ChatInput.EXCLUDE_INPUT_IN_OUTPUT}: a stream cannot repeat its input; leave it out")
    if stream and sampling.n > 1:
        raise RequestError(f"n: {sampling.n} choices cannot share a stream; send a request for each")
    return ChatRequest(
        prompt=_text(tensors, ChatInput.TEXT_INPUT),
        stream=stream,
        repeats_prompt=repeats,
        sampling=sampling,
        outputs=frozenset(output for name, output in _RETURNED.items() if _flag(tensors, name, default=False)),
        priority=priority or DEFAULT_PRIORITY,
        timeout_s=timeout_us / 1e6 if timeout_us else None,
        asked_as=asked_as,
    )


def _sampling(given: dict[str, Any]) -> SamplingParameters:
    asked = {key: value for key, value in given.items() if value is not None}
    for key in asked.keys() & _WITHOUT_EFFECT.keys():
        if _plain(value := asked.pop(key)) not in _WITHOUT_EFFECT[key]:
            raise RequestError(f"{key}: this model cannot honour {value!r}; leave it out")
    try:
        # Not strict: like the vLLM backend, take "0.7" for 0.7.
        return msgspec.convert(asked, SamplingParameters, strict=False)
    except msgspec.ValidationError as exc:
        raise RequestError(f"{ChatInput.SAMPLING_PARAMETERS}: {exc}") from exc


def _plain(value: Any) -> Any:
    try:
        return json.loads(value.lower()) if isinstance(value, str) else value
    except ValueError:
        return value


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as exc:
        raise RequestError(f"{name}: not JSON ({exc})") from exc
    if not isinstance(found, dict):
        raise RequestError(f"{name}: a JSON object is expected")
    return found


def _text(tensors: Mapping[str, NDArray[Any]], name: ChatInput) -> str:
    try:
        found = _single(tensors[name], name)
        return found.decode() if isinstance(found, bytes) else str(found)
    except UnicodeDecodeError as exc:
        raise RequestError(f"{name}: not UTF-8 ({exc.reason} at byte {exc.start})") from exc


def _flag(tensors: Mapping[str, NDArray[Any]], name: ChatInput, *, default: bool) -> bool:
    return bool(_single(tensors[name], name)) if name in tensors else default


def _single(tensor: NDArray[Any], name: ChatInput) -> Any:
    if tensor.size != 1:
        raise RequestError(f"{name}: one element is expected, not shape {list(np.shape(tensor))}")
    return tensor.reshape(1)[0]
