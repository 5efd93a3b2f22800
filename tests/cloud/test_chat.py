"""The `chat` model on the real tritonserver, through tritonclient, with the contract of Triton's vLLM backend."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from cloud.triton import Addresses
from cloud.wire import ErrorCode
from tests.cloud.checkpoint import CONTEXT
from tests.cloud.clients import ALL_RETURNED, AnswerError, ChatClient, Response

GREEDY = {"temperature": 0, "max_tokens": 24}


async def collect(chat: ChatClient, sampling: dict[str, Any]) -> list[Response]:
    return [response async for response in chat.stream(inputs=ALL_RETURNED, sampling=sampling)]


async def test_text_comes_with_its_prompt_unless_that_is_excluded(chat: ChatClient) -> None:
    whole = await chat.ask("Hello you", sampling=GREEDY, inputs={"exclude_input_in_output": False})
    answer = await chat.ask("Hello you", sampling=GREEDY, inputs={"exclude_input_in_output": True})

    assert len(answer.text) == 24
    assert whole.text == "Hello you" + answer.text


async def test_only_what_was_asked_for_is_returned(chat: ChatClient) -> None:
    bare = await chat.ask(sampling=GREEDY)

    assert bare == Response(bare.texts, None, None, None, None, None)


async def test_counts_reasons_and_log_probabilities_agree(chat: ChatClient) -> None:
    answer = await chat.ask("Hello", sampling={**GREEDY, "logprobs": 3}, inputs=ALL_RETURNED)

    assert answer.finish_reasons == ["length"]
    assert answer.num_input_tokens == 5
    assert answer.num_output_tokens == [24]
    assert answer.logprobs is not None
    assert answer.cumulative_logprobs is not None
    (places,) = answer.logprobs
    assert "".join(place.chosen.token for place in places) == answer.text
    assert answer.cumulative_logprobs[0] == pytest.approx(sum(place.chosen.logprob for place in places), abs=1e-4)
    for place in places:
        assert place.chosen == place.ranked[0]
        assert [entry.rank for entry in place.top(3)] == [1, 2, 3]


async def test_a_sampled_token_is_reported_with_its_own_rank(chat: ChatClient) -> None:
    sampling = {"temperature": 1.5, "seed": 3, "max_tokens": 40, "logprobs": 1}

    answer = await chat.ask(sampling=sampling, inputs={"return_logprobs": True})

    assert answer.logprobs is not None
    (places,) = answer.logprobs
    unlikely = [place for place in places if place.chosen.rank != 1]
    assert unlikely
    for place in unlikely:
        assert place.chosen not in place.top(1)
        assert place.chosen.logprob < place.top(1)[0].logprob


async def test_log_probabilities_nobody_asked_vllm_for_are_null(chat: ChatClient) -> None:
    answer = await chat.ask(sampling=GREEDY, inputs={"return_logprobs": True, "return_cumulative_logprob": True})

    assert answer.logprobs == [[]]
    assert answer.cumulative_logprobs is not None
    assert answer.cumulative_logprobs[0] < 0


async def test_a_stream_adds_up_to_the_whole_answer(chat: ChatClient) -> None:
    sampling = {"temperature": 0, "max_tokens": 400, "logprobs": 0}
    whole = await chat.ask(sampling=sampling, inputs=ALL_RETURNED)

    parts = await collect(chat, sampling)

    assert len(parts) > 2  # how many depends on how fast the responses go out
    assert "".join(part.text for part in parts) == whole.text
    assert sum(sum(part.num_output_tokens or []) for part in parts) == 400
    assert [part.finish_reasons for part in parts] == [["None"]] * (len(parts) - 1) + [["length"]]
    assert [place for part in parts for choice in part.logprobs or [] for place in choice] == (whole.logprobs or [])[0]
    assert parts[-1].cumulative_logprobs == whole.cumulative_logprobs
    assert {part.num_input_tokens for part in parts} == {whole.num_input_tokens}


async def test_a_seed_repeats_its_answer_and_choices_count_it_up(chat: ChatClient) -> None:
    def seeded(seed: int, n: int = 1) -> dict[str, Any]:
        return {"temperature": 1, "seed": seed, "max_tokens": 16, "n": n}

    alone = [(await chat.ask(sampling=seeded(seed))).text for seed in (7, 8)]
    again = await chat.ask(sampling=seeded(7))
    together = await chat.ask(sampling=seeded(7, n=2), inputs=ALL_RETURNED)

    assert alone[0] != alone[1]
    assert again.text == alone[0]
    assert together.texts == alone
    assert together.finish_reasons == ["length", "length"]
    assert together.num_output_tokens == [16, 16]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_answer_before_it(chat: ChatClient, stream: bool) -> None:
    whole = (await chat.ask(sampling=GREEDY)).text
    stop = whole[10:12]
    inputs = {"return_finish_reason": True}

    parts = [
        part async for part in chat.stream(inputs=inputs, sampling={**GREEDY, "stop": ["no", stop]}, stream=stream)
    ]

    assert "".join(part.text for part in parts) == whole[: whole.index(stop)]
    assert parts[-1].finish_reasons == ["stop"]


async def test_a_schema_is_followed(chat: ChatClient) -> None:
    guide = json.dumps({"json": {"enum": ["yes", "no"]}})

    answer = await chat.ask(
        sampling={"max_tokens": 20, "guided_decoding": guide}, inputs={"return_finish_reason": True}
    )

    assert json.loads(answer.text) in {"yes", "no"}
    assert answer.finish_reasons == ["stop"]


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"tempurature": 0}, "unknown field `tempurature`"),
        ({"top_k": 5}, "top_k: this model cannot honour 5"),
        ({"frequency_penalty": 0.5}, "frequency_penalty: this model cannot honour 0.5"),
        ({"guided_decoding": "{"}, "guided_decoding"),
        ({"guided_decoding": '{"json": {"type": "nonsense"}}'}, "nonsense"),
        ({"max_tokens": CONTEXT}, "max_tokens"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(chat: ChatClient, sampling: dict[str, Any], text: str) -> None:
    with pytest.raises(AnswerError, match=text) as refused:
        await chat.ask(sampling=sampling)

    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert (await chat.ask(sampling=GREEDY)).text


@pytest.mark.parametrize(
    ("prompt", "text"), [("", "prompt is empty"), ("x" * CONTEXT, f"{CONTEXT} tokens"), (b"\xff", "UTF-8")]
)
async def test_a_prompt_that_cannot_be_is_refused(chat: ChatClient, prompt: str | bytes, text: str) -> None:
    with pytest.raises(AnswerError, match=text) as refused:
        await anext(chat.stream(prompt))

    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_the_generate_endpoint_answers_over_http(triton: Addresses, chat: ChatClient) -> None:
    expected = await chat.ask(sampling=GREEDY)
    parameters = {"temperature": "0", "max_tokens": 24}  # as in the stock backend's README: numbers or texts

    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"http://{triton.http}/v2/models/chat/generate",
            json={"text_input": "Hi", "exclude_input_in_output": True, "parameters": parameters},
        )

    assert answer.json()["text_output"] == expected.text


async def test_a_refusal_over_http_has_a_status(triton: Addresses) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{triton.http}/v2/models/chat/generate", json={"text_input": ""})

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "prompt is empty" in answer.json()["error"]


async def test_errors_and_answers_in_any_order_leave_the_server_up(chat: ChatClient) -> None:
    """Streams that carry errors have killed tritonserver when it was asked for gRPC statuses."""
    wrong = {"max_tokens": 3, "top_k": 5}
    right = {"max_tokens": 3}

    for _ in range(10):
        asked = [chat.ask(sampling=sampling) for sampling in (wrong, right)]
        refused, answered = await asyncio.gather(*asked, return_exceptions=True)

        assert isinstance(refused, AnswerError)
        assert isinstance(answered, Response)


async def test_the_configuration_that_runs_can_be_read(triton: Addresses) -> None:
    async with httpx.AsyncClient() as client:
        parameters = (await client.get(f"http://{triton.http}/v2/models/chat/config")).json()["parameters"]

    assert parameters["slots"] == {"string_value": "2"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/chat/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/logging"),
        ("POST", "/v2/trace/setting"),
    ],
)
async def test_interfaces_that_reach_beyond_inference_are_closed(triton: Addresses, method: str, path: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.request(method, f"http://{triton.http}{path}")

    assert answer.status_code == httpx.codes.FORBIDDEN
