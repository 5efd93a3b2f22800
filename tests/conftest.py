from collections.abc import Iterator

import pytest

from loadtests.site import Site, running_site


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop of every asynchronous test."""
    return "asyncio"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The demo's three parts, shared by every test that leaves them running."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
