import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop of every asynchronous test."""
    return "asyncio"
