"""`/v1/embeddings` twice, through the running site: the second time from the cache, and the same to the last bit."""

import base64
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from loadtests.site import Site

MODELS = ["auto", "edge", "cloud", "edge-demo", "cloud-demo"]


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def fresh() -> str:
    """What makes a text one that no test has sent before."""
    return secrets.token_hex(8)


def embed(site: Site, given: Any, **more: Any) -> httpx.Response:
    """One request."""
    headers = more.pop("headers", {})
    body = {"input": given, **more}
    return httpx.post(f"{site.url}/v1/embeddings", json=body, headers=headers, timeout=30).raise_for_status()


def texts(fresh: str) -> list[str]:
    return [f"The cat sleeps, {fresh}.", f"Stocks fell on monday {fresh}, and fell again.", fresh]


@pytest.mark.parametrize("model", MODELS)
def test_the_second_answer_is_from_the_cache_and_the_same(client: openai.OpenAI, model: str, fresh: str) -> None:
    first = client.embeddings.with_raw_response.create(model=model, input=texts(fresh))
    second = client.embeddings.with_raw_response.create(model=model, input=texts(fresh))

    assert first.headers["x-cache"] == "miss"
    assert second.headers["x-cache"] == "hit"
    assert second.headers["x-route-target"] == first.headers["x-route-target"]
    assert second.content == first.content
    assert first.parse().usage.prompt_tokens > 20


@pytest.mark.parametrize("model", ["edge", "cloud"])
def test_every_form_is_cut_from_one_stored_vector(site: Site, model: str, fresh: str) -> None:
    given = texts(fresh)
    coded = embed(site, given, model=model, encoding_format="base64", dimensions=100).json()
    forms = [
        embed(site, given, model=model, encoding_format=form, **({"dimensions": width} if width else {}))
        for form in ("float", "base64")
        for width in (None, 64, 100)
    ]

    assert {form.headers["x-cache"] for form in forms} == {"hit"}
    assert {form.json()["usage"]["prompt_tokens"] for form in forms} == {coded["usage"]["prompt_tokens"]}
    whole, floats_64, floats_100, coded_whole, coded_64, coded_100 = [read(form.json()["data"]) for form in forms]
    assert whole.shape == (3, 384)
    assert (whole == coded_whole).all()
    assert (floats_64 == coded_64).all()
    assert (floats_100 == coded_100).all()
    assert (coded_100 == read(coded["data"])).all()
    assert floats_64 == pytest.approx(whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True), abs=1e-6)


def read(data: Sequence[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vectors, in whichever form."""
    said = [one["embedding"] for one in data]
    return np.array(
        [np.frombuffer(base64.b64decode(one), "<f4") if isinstance(one, str) else np.array(one, "<f4") for one in said]
    )


@pytest.mark.parametrize("model", ["edge", "cloud"])
def test_a_batch_is_put_together_from_both_and_usage_does_not_tell(site: Site, model: str, fresh: str) -> None:
    one, other, last = texts(fresh)
    alone = [embed(site, text, model=model) for text in (one, other)]
    mixed = embed(site, [last, other, one, last], model=model)
    bypassed = embed(site, [last, other, one, last], model=model, headers={"cache-control": "no-store"})
    again = embed(site, [last, other, one, last], model=model)

    assert [answer.headers["x-cache"] for answer in (mixed, bypassed, again)] == ["miss", "bypass", "hit"]
    usage = {answer.json()["usage"]["prompt_tokens"] for answer in (mixed, bypassed, again)}
    assert len(usage) == 1
    vectors = read(mixed.json()["data"])
    assert (vectors[[2, 1]] == np.concatenate([read(answer.json()["data"]) for answer in alone])).all()
    assert (vectors[0] == vectors[3]).all()
    assert (read(again.json()["data"]) == vectors).all()
    assert [one["index"] for one in again.json()["data"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("model", ["edge", "cloud"])
def test_token_lists_are_cached_apart_from_texts(site: Site, model: str, fresh: str) -> None:
    tokens = [101, *(1000 + int(digit, 16) for digit in fresh), 102]

    answers = [embed(site, given, model=model) for given in (tokens, tokens, [tokens], str(tokens))]

    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit", "hit", "miss"]
    assert {answer.json()["usage"]["prompt_tokens"] for answer in answers[:3]} == {len(tokens)}


def test_tiers_do_not_share_vectors(site: Site, fresh: str) -> None:
    answers = [embed(site, fresh, model=model) for model in ("edge", "cloud", "edge", "cloud")]

    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "miss", "hit", "hit"]
    assert [answer.headers["x-route-tier"] for answer in answers] == ["edge", "cloud"] * 2


def test_a_wrong_batch_is_an_error_and_leaves_nothing(site: Site, fresh: str) -> None:
    body = {"input": [[101, 102], [10**9]], "model": "edge"}

    for _ in range(2):
        assert httpx.post(f"{site.url}/v1/embeddings", json=body, timeout=10).status_code == 400
    good = [101, *(2000 + int(digit, 16) for digit in fresh), 102]
    assert httpx.post(f"{site.url}/v1/embeddings", json={**body, "input": [good, [10**9]]}).status_code == 400
    assert embed(site, good, model="edge").headers["x-cache"] == "miss"
