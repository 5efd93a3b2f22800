import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.chat_request import ChatRequest, read_request
from cloud.wire import DEFAULT_PRIORITY, ChatOutput, SamplingParameters
from edge.engine.errors import RequestError


def read(parameters: dict[str, Any] | None = None, *, timeout_us: int = 0, **tensors: Any) -> ChatRequest:
    given = {"text_input": "Hi", **tensors}
    return read_request(
        {name: tensor(value) for name, value in given.items()}, json.dumps(parameters or {}), timeout_us
    )


def tensor(value: str | bytes | bool) -> NDArray[Any]:
    if isinstance(value, bool):
        return np.array([value])
    return np.array([value.encode() if isinstance(value, str) else value], dtype=np.object_)


def test_text_alone_reads_as_the_stock_backend_reads_it() -> None:
    request = read()

    assert request == ChatRequest(
        prompt="Hi",
        stream=False,
        repeats_prompt=True,
        sampling=SamplingParameters(),
        outputs=frozenset(),
        priority=DEFAULT_PRIORITY,
        timeout_s=None,
    )


def test_everything_that_can_be_said_is_read() -> None:
    request = read(
        {"chat_priority": 1},
        timeout_us=1_500_000,
        stream=True,
        sampling_parameters='{"temperature": 0, "stop": "\\n", "seed": 7, "logprobs": 2, "max_tokens": 9}',
        return_logprobs=True,
        return_num_output_tokens=True,
        return_finish_reason=False,
    )

    assert request.stream
    assert not request.repeats_prompt
    assert request.sampling == SamplingParameters(temperature=0, stop="\n", seed=7, logprobs=2, max_tokens=9)
    assert request.outputs == {ChatOutput.LOGPROBS, ChatOutput.NUM_OUTPUT_TOKENS}
    assert request.priority == 1
    assert request.timeout_s == 1.5


def test_sampling_parameters_may_come_as_request_parameters_but_the_tensor_wins() -> None:
    assert read({"max_tokens": 3}).sampling.max_tokens == 3
    assert read({"max_tokens": 3}, sampling_parameters='{"temperature": 0}').sampling == SamplingParameters(
        temperature=0
    )


def test_numbers_may_be_written_as_text_and_null_means_default() -> None:
    sampling = read(sampling_parameters='{"temperature": "0.5", "max_tokens": "12", "seed": null}').sampling

    assert sampling == SamplingParameters(temperature=0.5, max_tokens=12)


@pytest.mark.parametrize("neutral", ['{"top_k": -1}', '{"presence_penalty": "0.0"}', '{"ignore_eos": "False"}'])
def test_parameters_without_effect_are_accepted(neutral: str) -> None:
    assert read(sampling_parameters=neutral).sampling == SamplingParameters()


@pytest.mark.parametrize(
    ("sampling_parameters", "text"),
    [
        ("{", "sampling_parameters: not JSON"),
        ("[1]", "sampling_parameters: a JSON object is expected"),
        ('{"temperature": -1}', r"sampling_parameters: .* >= 0.*temperature"),
        ('{"top_p": 0}', r"\$\.top_p"),
        ('{"max_tokens": 0}', r"\$\.max_tokens"),
        ('{"n": 17}', r"\$\.n"),
        ('{"logprobs": 21}', r"\$\.logprobs"),
        ('{"stop": 5}', r"\$\.stop"),
        ('{"tempurature": 1}', "unknown field `tempurature`"),
        ('{"top_k": 40}', "top_k: this model cannot honour 40"),
        ('{"frequency_penalty": "0.5"}', "frequency_penalty: this model cannot honour '0.5'"),
    ],
)
def test_sampling_parameters_that_cannot_be_honoured_are_named(sampling_parameters: str, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        read(sampling_parameters=sampling_parameters)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"image": "aGk="}, "image: this model reads text only"),
        ({"embedding_request": "{}"}, "embedding_request: this model reads text only"),
        ({"text_input": b"\xff"}, "text_input: not UTF-8"),
        ({"stream": True, "exclude_input_in_output": False}, "exclude_input_in_output: a stream cannot"),
        ({"stream": True, "sampling_parameters": '{"n": 2}'}, "n: 2 choices cannot share a stream"),
    ],
)
def test_inputs_that_cannot_be_honoured_are_named(tensors: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        read(**tensors)


@pytest.mark.parametrize("priority", [-1, 4, "high"])
def test_priorities_outside_the_levels_are_refused(priority: object) -> None:
    with pytest.raises(RequestError, match="chat_priority"):
        read({"chat_priority": priority})
