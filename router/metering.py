"""Tenants' quotas over whole requests: charged by estimate before any work, settled by use when it is over."""

import time
from collections.abc import Callable

from router.config.lanes import Quotas
from router.estimates import Estimator
from router.query import EmbeddingQuery, Query, Usage
from router.quota import Accounts, QuotaHold


class Charge:
    """What one request took from its tenant's quota."""

    def __init__(self, meter: "Meter", hold: QuotaHold, query: Query | EmbeddingQuery | None) -> None:
        self._meter = meter
        self._hold = hold
        self._query = query

    def settle(self, usage: Usage) -> None:
        """It took so much, nothing if it came from a cache. Without this it took what was estimated."""
        self._meter.settle(self._hold, usage)

    def learn(self, usage: Usage) -> None:
        """A target took so much for it: the next estimates are better."""
        if self._query is not None:
            self._meter.estimator.learn(self._query, usage)


class Meter:
    """For one thread. Tokens are estimated from what all targets took."""

    def __init__(self, config: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        quotas = (config.default, *config.tenants.values())
        self._limits = any(q.requests_per_min is not None or q.tokens_per_min is not None for q in quotas)
        self._accounts = Accounts(config)
        self._clock = clock
        self.estimator = Estimator()

    def charge(self, tenant: str, query: Query | EmbeddingQuery | None) -> Charge | None:
        """One request, and its tokens if it is a query; None where nobody has limits.

        Raises:
            QuotaError: the tenant has too little left.
        """
        if not self._limits:
            return None
        tokens = self.estimator.estimate(query).tokens if query is not None else 0.0
        return Charge(self, self._accounts.reserve(tenant, tokens, self._clock()), query)

    def settle(self, hold: QuotaHold, usage: Usage) -> None:
        """See `Charge.settle`."""
        self._accounts.settle(hold, usage.prompt_tokens + usage.completion_tokens, self._clock())

    def headers(self, tenant: str) -> dict[str, str]:
        """`x-ratelimit-*`; none for a tenant without limits."""
        return self._accounts.headers(tenant, self._clock()) if self._limits else {}
