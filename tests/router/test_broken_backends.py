"""What the OpenAI backend makes of servers that fail in every way."""

import time
from collections.abc import AsyncIterator

import pytest

from router.backends.openai import OpenAIBackend
from router.config import OpenAITarget
from router.decision import Tier
from router.errors import BackendError, DeadlineError, OverloadedError, RefusedError, RouterError, UnavailableError
from router.query import Conversation, Delta, EmbeddingQuery, Message, Parameters, Query
from tests.servers import broken, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def broken_url() -> AsyncIterator[str]:
    async with serving(broken) as url:
        yield url


def hello(deadline_s: float = 5.0) -> Query:
    """A short question with a deadline."""
    return Query(Conversation((Message("user", "hello"),)), Parameters(), deadline=time.monotonic() + deadline_s)


def backend(url: str) -> OpenAIBackend:
    """A backend over that address."""
    return OpenAIBackend("it", OpenAITarget(tier=Tier.EDGE, url=url, chat_model="m", embedding_model="m"), None)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("refuses", BackendError),
        ("blames", RefusedError),
        ("full", OverloadedError),
        ("babbles", BackendError),
        ("stalls", DeadlineError),
        ("breaks", BackendError),
    ],
)
async def test_a_broken_server_raises_its_own_error(broken_url: str, path: str, error: type[RouterError]) -> None:
    it = backend(f"{broken_url}/{path}")
    started = time.monotonic()

    with pytest.raises(error) as caught:
        await it.complete(hello(0.3))

    assert type(caught.value) is error
    assert time.monotonic() - started < 2
    await it.__aexit__()


@pytest.mark.parametrize(
    ("path", "error"), [("starves", DeadlineError), ("breaks", BackendError), ("mutters", BackendError)]
)
async def test_a_stream_that_fails_halfway_gives_what_came_and_then_raises(
    broken_url: str, path: str, error: type[RouterError]
) -> None:
    it = backend(f"{broken_url}/{path}")
    got: list[Delta] = []

    async def read() -> None:
        async for delta in it.stream(hello(0.4)):
            got.append(delta)  # noqa: PERF401 - the pieces before the failure count

    with pytest.raises(error):
        await read()

    assert [delta.text for delta in got] == ["hello"]
    await it.__aexit__()


async def test_nobody_at_the_other_end_is_unavailable_and_not_ready() -> None:
    it = backend("http://127.0.0.1:1")

    with pytest.raises(UnavailableError):
        await it.complete(hello())
    with pytest.raises(UnavailableError):
        await it.embed(EmbeddingQuery(("a",)))

    assert not await it.ready()
    await it.__aexit__()
