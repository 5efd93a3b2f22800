from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The demo's three parts, shared by every test that leaves them running."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site
