"""
The seam to the places that compute. One protocol, two implementations (`openai`, `triton`), one contract suite
(`tests/router/test_backends.py`).
"""

import time
from collections.abc import AsyncGenerator
from typing import Protocol, Self

from router.query import Completion, Delta, EmbeddingQuery, Embeddings, Query


class Backend(Protocol):
    """A place that computes completions and embeddings, while its context is entered.

    Every method raises `BackendError` or `OverloadedError`, and nothing else. Cancelling a call, or closing the
    iterator of a stream, cancels the work at the place. Work still running at the query's deadline is cancelled and
    raises `DeadlineError`.
    """

    @property
    def version(self) -> str:
        """What the place last said of all its models, after `targets.<name>.version`; "" while neither is known.

        It changes when a model is replaced, also under the same name: once `ready()` was true again after the change.
        While the place is down it stays. A call during which it changed may have been answered by either model.
        """
        ...

    async def complete(self, query: Query) -> Completion:
        """All answers, whole."""
        ...

    def stream(self, query: Query) -> AsyncGenerator[Delta, None]:
        """The answers piece by piece; each one's last piece carries `finish`, the last piece of all `usage`."""
        ...

    async def embed(self, query: EmbeddingQuery) -> Embeddings:
        """One vector an input."""
        ...

    async def ready(self) -> bool:
        """Whether the place would take work now; never raises."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


def remaining_s(deadline: float | None) -> float | None:
    """Seconds left, never below 1 ms: an expired deadline fails at the first wait, through the usual door."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)


def join_versions(*versions: str | None) -> str:
    """Those that are known, in order; none of them contains a space that another could be mistaken for."""
    return " ".join(filter(None, versions))
