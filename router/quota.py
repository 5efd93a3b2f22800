"""
How many requests and tokens a tenant may ask for: token buckets, refilled evenly. Synchronous and pure: times given.

Tokens are taken by estimate before any work and settled by use afterwards: a bucket may go below zero by what an
estimate missed, and then nothing is admitted until it is above again.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

from router.config.lanes import Quota, Quotas
from router.errors import QuotaError


class Bucket:
    """Holds at most `size`, gains `per_s`. Starts full."""

    __slots__ = ("_at", "_level", "per_s", "size")

    def __init__(self, per_s: float, size: float, now: float) -> None:
        self.per_s = per_s
        self.size = size
        self._level = size
        self._at = now

    def level(self, now: float) -> float:
        """What is in it; below zero when more was used than estimated."""
        if now > self._at:
            self._level = min(self.size, self._level + (now - self._at) * self.per_s)
            self._at = now
        return self._level

    @property
    def state(self) -> tuple[float, float]:
        """The level, and when it was that."""
        return self._level, self._at

    @state.setter
    def state(self, state: tuple[float, float]) -> None:
        self._level, self._at = state

    def take(self, amount: float, now: float) -> None:
        """Without asking; less than none gives back."""
        self._level = min(self.size, self.level(now) - amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Until it holds so much; infinite when it never will."""
        if amount > self.size:
            return math.inf
        return max(amount - self.level(now), 0.0) / self.per_s

    def full_s(self, now: float) -> float:
        """Until it is full."""
        return (self.size - self.level(now)) / self.per_s


@dataclass(slots=True)
class Account:
    """A tenant's buckets; None: no limit."""

    requests: Bucket | None
    tokens: Bucket | None

    def idle(self, now: float) -> bool:
        """Whether forgetting it changes nothing."""
        return all(b is None or b.level(now) >= b.size for b in (self.requests, self.tokens))


@dataclass(slots=True)
class QuotaHold:
    """Tokens taken by estimate, until `Accounts.settle`."""

    tenant: str
    account: Account
    tokens: float
    open: bool = True


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit, for headers."""

    limit: int
    remaining: int
    reset_s: float


class Accounts:
    """All tenants' quotas; of those that are not full the last `most_tenants` to ask are remembered."""

    def __init__(self, config: Quotas) -> None:
        self._config = config
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def reserve(self, tenant: str, tokens: float, now: float) -> QuotaHold:
        """One request and an estimate of its tokens; nothing is taken when it is refused.

        Raises:
            QuotaError: there is too little left; with the time until there is enough, if ever.
        """
        account = self.account(tenant, now)
        for bucket, amount, name in ((account.requests, 1.0, "requests"), (account.tokens, tokens, "tokens")):
            if bucket is None or amount <= bucket.level(now):
                continue
            wait_s = bucket.wait_s(amount, now)
            if math.isinf(wait_s):
                raise QuotaError(
                    f"Request too large for {tenant!r}: {math.ceil(amount)} {name}, and no more than "
                    f"{math.floor(bucket.size)} may come at once; ask for less (max_tokens) or raise quotas.",
                )
            raise QuotaError(
                f"Rate limit reached for {tenant!r} on {name} per min: limit {round(bucket.per_s * 60)}. "
                f"Please try again in {format_duration(wait_s)}.",
                retry_after_s=wait_s,
            )
        if account.requests is not None:
            account.requests.take(1.0, now)
        if account.tokens is not None:
            account.tokens.take(tokens, now)
        return QuotaHold(tenant, account, tokens)

    def settle(self, hold: QuotaHold, used: float, now: float) -> None:
        """The request is over and took so many tokens, 0 if it never ran. Only the first time counts."""
        if hold.open and hold.account.tokens is not None:
            hold.account.tokens.take(used - hold.tokens, now)
        hold.open = False

    def allowances(self, tenant: str, now: float) -> tuple[Allowance | None, Allowance | None]:
        """Of requests and of tokens, those that are limited."""
        account = self.account(tenant, now)
        return _allow(account.requests, now), _allow(account.tokens, now)

    def headers(self, tenant: str, now: float) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` (platform.openai.com/docs/guides/rate-limits), for the limits that there are."""
        named = zip(("requests", "tokens"), self.allowances(tenant, now), strict=True)
        return {
            f"x-ratelimit-{what}-{name}": value
            for name, allowance in named
            if allowance is not None
            for what, value in (
                ("limit", str(allowance.limit)),
                ("remaining", str(allowance.remaining)),
                ("reset", format_duration(allowance.reset_s)),
            )
        }

    def account(self, tenant: str, now: float) -> Account:
        """A tenant's buckets, full ones if it is new."""
        account = self._accounts.get(tenant)
        if account is None:
            quota = self._config.tenants.get(tenant, self._config.default)
            account = Account(_fill(quota.requests_per_min, quota, now), _fill(quota.tokens_per_min, quota, now))
            self._accounts[tenant] = account
        else:
            self._accounts.move_to_end(tenant)
        self._forget(now)
        return account

    def _forget(self, now: float) -> None:
        """At most two each time: O(1), and yet full accounts go faster than new ones come."""
        for _ in range(2):
            name, oldest = next(iter(self._accounts.items()))
            over = len(self._accounts) > self._config.most_tenants
            if len(self._accounts) == 1 or not (over or oldest.idle(now)):
                return
            del self._accounts[name]


def format_duration(seconds: float) -> str:
    """As OpenAI writes it (and Go does): `17ms`, `1.5s`, `6m0s`, `1h0m5s`; rounded up to the millisecond."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    said = f"{rest_ms / 1000:g}s"
    if not minutes:
        return said
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{said}" if hours else f"{minutes}m{said}"


def _fill(per_min: float | None, quota: Quota, now: float) -> Bucket | None:
    """A full bucket; it holds one request at least."""
    if per_min is None:
        return None
    return Bucket(per_min / 60, max(per_min / 60 * quota.burst_s, 1.0), now)


def _allow(bucket: Bucket | None, now: float) -> Allowance | None:
    if bucket is None:
        return None
    return Allowance(round(bucket.per_s * 60), max(math.floor(bucket.level(now)), 0), bucket.full_s(now))
