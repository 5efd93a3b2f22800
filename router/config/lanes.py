"""The sections of lanes, quotas and pressure."""

from typing import Annotated

import msgspec
from msgspec import Meta

from router.config.section import Seconds, Section, Share
from router.query import Priority

Count = Annotated[int, Meta(ge=1, le=4096)]
Rate = Annotated[float, Meta(gt=0, le=1e9)]
TenantName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Adaptive(Section, frozen=True):
    """Slots follow the target's latency between `least` and `most`, trying `queue` more while it rests.

    Latency up to `tolerance` times its long mean is rest.
    """

    least: Count = 1
    most: Count = 64
    queue: Annotated[float, Meta(gt=0, le=64)] = 1.0
    tolerance: Annotated[float, Meta(ge=1, le=4)] = 1.1

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) is more than most ({self.most}); swap them")


class Shares(Section, frozen=True):
    """What part of the work each class gets at least while it waits; what is left goes by urgency.

    The same part of the backlog is kept for it.
    """

    interactive: Share = 0.5
    standard: Share = 0.2
    batch: Share = 0.1

    def __post_init__(self) -> None:
        if sum(self.by_class().values()) > 1 + 1e-9:
            raise ValueError("the shares are more than 1 together; lower some")

    def by_class(self) -> dict[Priority, float]:
        """As the backlog takes them."""
        return {
            Priority.INTERACTIVE: self.interactive,
            Priority.STANDARD: self.standard,
            Priority.BATCH: self.batch,
        }


class MostWait(Section, frozen=True):
    """Requests of a class whose predicted wait is longer are refused at once; None: only the aging bound counts."""

    interactive_s: Seconds | None = None
    standard_s: Seconds | None = None
    batch_s: Seconds | None = None

    def of(self, priority: Priority) -> float | None:
        """A class's."""
        match priority:
            case Priority.INTERACTIVE:
                return self.interactive_s
            case Priority.STANDARD:
                return self.standard_s
            case Priority.BATCH:
                return self.batch_s


class Lane(Section, frozen=True):
    """What may run at a target at once, and what may wait for it.

    `slots` is fixed, or `adaptive` moves it. `backlog` is how many wait at most; 0 refuses whatever finds no free slot.
    Who has waited for `aging_s` is next, whatever its class. A request with less than `doomed_part` of its predicted
    service left before its deadline is not started. What finds no room here goes to another target that may answer,
    batch work only with `spill`.
    """

    slots: Count = 8
    adaptive: Adaptive | None = None
    backlog: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    shares: Shares = Shares()
    aging_s: Seconds = 60.0
    most_wait: MostWait = MostWait()
    doomed_part: Share = 1.0
    spill: bool = False


class Quota(Section, frozen=True):
    """What a tenant may ask for; None: no limit. `burst_s` is how much of it may come at once, in seconds' worth."""

    requests_per_min: Rate | None = None
    tokens_per_min: Rate | None = None
    burst_s: Seconds = 60.0


class Quotas(Section, frozen=True):
    """`default` is for tenants without an entry of their own. `weights` share a lane between tenants, 1 for others."""

    default: Quota = Quota()
    tenants: dict[TenantName, Quota] = msgspec.field(default_factory=dict)
    weights: dict[TenantName, Annotated[float, Meta(gt=0, le=1000)]] = msgspec.field(default_factory=dict)
    most_tenants: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000

    @property
    def limited(self) -> bool:
        """Whether anybody has limits."""
        quotas = (self.default, *self.tenants.values())
        return any(q.requests_per_min is not None or q.tokens_per_min is not None for q in quotas)


class Pressure(Section, frozen=True):
    """Load-aware routing: how far load may move the threshold, in log-odds, so that answers begin within `objective_s`.

    A tier is under pressure when its predicted time to the first token is more than `engage` of the objective, and
    rests below `release` of it. The threshold moves at most `shift_per_s`, back to normal at most `return_per_s`, and
    turns round at most once in `window_s`.
    """

    enabled: bool = False
    objective_s: Seconds = 2.0
    most_to_cloud: Annotated[float, Meta(ge=0, le=20)] = 2.0
    most_to_edge: Annotated[float, Meta(ge=0, le=20)] = 2.0
    engage: Annotated[float, Meta(gt=0, le=1)] = 0.7
    release: Annotated[float, Meta(gt=0, le=1)] = 0.3
    shift_per_s: Rate = 0.5
    return_per_s: Rate = 0.05
    window_s: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.release >= self.engage:
            raise ValueError(f"release ({self.release}) is not below engage ({self.engage}); lower it")
