import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings

from loadtests.site import Site, running_site

# a machine may be busy: properties are not about time
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop of every asynchronous test."""
    return "asyncio"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running router, without `/v1`, and a key for it."""

    url: str
    key: str


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """The site of `HYBRID_URL` and `HYBRID_API_KEY` where they are set (one in containers), else `site`."""
    if url := os.environ.get("HYBRID_URL"):
        return Endpoint(url, os.environ.get("HYBRID_API_KEY", "none"))
    running: Site = request.getfixturevalue("site")
    return Endpoint(running.url, "none")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The demo's three parts, shared by every test that leaves them running."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
