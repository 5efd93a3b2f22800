"""The `embed` model on the real tritonserver."""

import asyncio

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from cloud.wire import EMBEDDING_WIDTH, TIMEOUT_TEXT
from tests.cloud.clients import EmbedClient, Metrics


async def test_a_text_becomes_a_vector_of_length_one(embed: EmbedClient) -> None:
    vector, tokens = await embed.embed("hello")

    assert vector.shape == (EMBEDDING_WIDTH,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert tokens == 5


async def test_token_ids_and_their_text_have_one_vector(embed: EmbedClient) -> None:
    text, _ = await embed.embed("abc")
    ids, tokens = await embed.embed(token_ids=[ord(letter) - ord("!") + 2 for letter in "abc"])

    assert tokens == 3
    np.testing.assert_allclose(ids, text, atol=1e-6)


async def test_requests_run_together_and_keep_their_own_vectors(embed: EmbedClient, metrics: Metrics) -> None:
    texts = ["".join(chr(33 + (i * j) % 90) for j in range(1, 4 + i % 7)) for i in range(64)]
    alone = [(await embed.embed(text))[0] for text in texts[:8]]
    before = [await metrics.read(name, model="embed") for name in ("nv_inference_count", "nv_inference_exec_count")]

    together = await asyncio.gather(*(embed.embed(text) for text in texts))

    after = [await metrics.read(name, model="embed") for name in ("nv_inference_count", "nv_inference_exec_count")]
    inferences, executions = (now - then for now, then in zip(after, before, strict=True))
    assert inferences == 64
    assert executions < 48
    assert [tokens for _, tokens in together] == [len(text) for text in texts]
    for (vector, _), expected in zip(together, alone, strict=False):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


async def test_a_long_text_is_cut_at_what_the_model_reads(embed: EmbedClient) -> None:
    _, tokens = await embed.embed("x" * 500)

    assert tokens == 64


async def test_a_wrong_request_does_not_harm_its_batch(embed: EmbedClient) -> None:
    results = await asyncio.gather(
        *(embed.embed("good") for _ in range(8)), embed.embed(token_ids=[10_000]), return_exceptions=True
    )

    *good, wrong = results
    assert all(not isinstance(result, BaseException) for result in good)
    assert isinstance(wrong, InferenceServerException)
    assert "10000 is no token of this model" in str(wrong.message())
    assert wrong.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("inputs", [{}, {"text": "a", "token_ids": [5]}])
async def test_one_of_text_and_token_ids_is_needed(embed: EmbedClient, inputs: dict[str, object]) -> None:
    with pytest.raises(InferenceServerException):
        await embed.embed(**inputs)  # type: ignore[arg-type]


async def test_the_urgent_overtake_those_who_wait(embed: EmbedClient) -> None:
    order: list[int] = []

    async def ask(priority: int) -> None:
        await embed.embed("one two three four " * 10, priority=priority)
        order.append(priority)

    async with asyncio.TaskGroup() as group:
        for _ in range(400):
            group.create_task(ask(3))
        for _ in range(8):
            group.create_task(ask(1))

    assert order.index(1) < 300


async def test_the_timeout_of_a_queued_request_passes(embed: EmbedClient) -> None:
    """A microsecond passes while the request waits for its turn; those beside it are served."""
    hurried = [embed.embed("hurry", timeout=1) for _ in range(32)]
    calm = [embed.embed("calm") for _ in range(32)]

    results = await asyncio.gather(*hurried, *calm, return_exceptions=True)

    expired = [str(each.message()) for each in results if isinstance(each, InferenceServerException)]
    assert expired
    assert all(TIMEOUT_TEXT in text for text in expired)
    assert all(not isinstance(each, BaseException) for each in results[32:])
