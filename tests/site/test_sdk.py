"""The official `openai` SDK against the running site, for `auto`, `edge` and `cloud`."""

import base64
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.conftest import Endpoint

EASY = "What is 3 plus 4?"
MODELS = ["auto", "edge", "cloud"]


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=endpoint.key, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
async def async_client(endpoint: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{endpoint.url}/v1", api_key=endpoint.key, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
def test_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": EASY}], temperature=0, max_tokens=100
    )

    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert (answer.choices[0].message.content or "").strip().endswith("7")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 10


@pytest.mark.parametrize("model", MODELS)
def test_chat_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": EASY}], temperature=0, max_tokens=100
    )

    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": EASY}],
            temperature=0,
            max_tokens=100,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.anyio
@pytest.mark.parametrize("model", MODELS)
async def test_async_chat_whole_and_streamed(async_client: openai.AsyncOpenAI, model: str) -> None:
    user: ChatCompletionUserMessageParam = {"role": "user", "content": EASY}
    whole = await async_client.chat.completions.create(model=model, messages=[user], temperature=0)
    stream = await async_client.chat.completions.create(model=model, messages=[user], temperature=0, stream=True)

    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert text == whole.choices[0].message.content


@pytest.mark.parametrize("model", MODELS)
def test_several_answers_with_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": EASY}],
        n=3,
        seed=5,
        temperature=0.5,
        logprobs=True,
        top_logprobs=2,
        max_tokens=100,
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert all(place.logprob <= 0 and len(place.top_logprobs) == 2 for place in choice.logprobs.content)
        assert "".join(place.token for place in choice.logprobs.content).startswith(choice.message.content or "")


@pytest.mark.parametrize("model", MODELS)
def test_completions(client: openai.OpenAI, model: str) -> None:
    prompts = [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q in (EASY, "What is 2 plus 2?")]

    answer = client.completions.create(model=model, prompt=prompts, temperature=0, max_tokens=100, logprobs=1)
    streamed = list(
        client.completions.create(model=model, prompt=prompts[0], temperature=0, max_tokens=100, stream=True)
    )

    assert [choice.text.strip()[-1] for choice in answer.choices] == ["7", "4"]
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.text_offset is not None
    assert len(logprobs.tokens) == len(logprobs.text_offset)


@pytest.mark.parametrize("model", MODELS)
def test_embeddings_default_base64_floats_tokens_and_dimensions(client: openai.OpenAI, model: str) -> None:
    listed = client.embeddings.create(model=model, input=["The cat sleeps.", "A cat is asleep.", "Stocks fell."])
    floats = client.embeddings.create(model=model, input="The cat sleeps.", encoding_format="float")
    short = client.embeddings.create(model=model, input="The cat sleeps.", dimensions=64)
    tokens = client.embeddings.create(model=model, input=[[101, 1996, 4937, 102], [101, 102]])

    vectors = np.array([one.embedding for one in listed.data])
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-3)
    assert vectors[0] @ vectors[1] > 0.8 > 0.3 > vectors[0] @ vectors[2]
    assert floats.data[0].embedding == pytest.approx(listed.data[0].embedding, abs=1e-3)
    assert len(short.data[0].embedding) == 64
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1.0, abs=1e-3)
    assert len(tokens.data) == 2
    assert listed.usage.prompt_tokens > 10


def test_base64_is_little_endian_float32(endpoint: Endpoint) -> None:
    body = {"model": "edge", "input": "hello", "encoding_format": "base64"}

    headers = {"authorization": f"Bearer {endpoint.key}"}
    answer = httpx.post(f"{endpoint.url}/v1/embeddings", json=body, headers=headers, timeout=10).json()

    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-3)


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]

    assert names == ["auto", "edge", "cloud", "edge-demo", "cloud-demo"]
    assert client.models.retrieve("edge").id == "edge"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("change", "error", "status", "param", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, 404, "model", "model_not_found"),
        ({"messages": []}, openai.BadRequestError, 400, "messages", "empty_array"),
        ({"messages": "hello"}, openai.BadRequestError, 400, "messages", "invalid_type"),
        ({"max_tokens": "ten"}, openai.BadRequestError, 400, "max_tokens", "invalid_type"),
        ({"max_tokens": -1}, openai.BadRequestError, 400, "max_tokens", "integer_below_min_value"),
        ({"temperature": 9}, openai.BadRequestError, 400, "temperature", "decimal_above_max_value"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, 400, "tools", "unsupported_parameter"),
        ({"frequency_penalty": 1}, openai.BadRequestError, 400, "frequency_penalty", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, openai.BadRequestError, 400, "stream_options", None),
    ],
)
def test_errors_are_openais(
    client: openai.OpenAI,
    change: dict[str, object],
    error: type[openai.APIStatusError],
    status: int,
    param: str,
    code: str | None,
) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **change}

    with pytest.raises(error) as caught:
        client.chat.completions.create(**body)  # type: ignore[call-overload]

    assert (caught.value.status_code, caught.value.param, caught.value.code) == (status, param, code)
    assert caught.value.type == "invalid_request_error"


def test_image_parts_are_refused_until_a_target_declares_them(client: openai.OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}

    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": [image]}])  # type: ignore[list-item,misc]

    assert caught.value.param == "messages"


def test_neutral_and_unknown_fields_are_accepted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": EASY}],
        user="me",
        metadata={"a": "b"},
        store=False,
        frequency_penalty=0,
        presence_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        service_tier="default",
        extra_body={"whatever": 1},
    )

    assert answer.choices[0].message.content


@pytest.mark.parametrize("model", ["edge", "cloud"])
def test_json_schema_binds_the_answer(client: openai.OpenAI, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": False,
    }

    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": EASY}],
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )

    assert answer.choices[0].finish_reason == "stop"
    assert 0 <= json.loads(answer.choices[0].message.content or "")["n"] <= 99
