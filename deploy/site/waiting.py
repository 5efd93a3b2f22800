"""What an upgrade waits for, each with a limit and a reason in one line."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from deploy.site.errors import SiteError
from deploy.site.services import Services

_POLL_S: Final = 0.2
_READY: Final = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: until a started service is ready, until routers notice a change, until running work is over; and how
    long a balancer may need to see that a replica is back.
    """

    ready_s: float = 90.0
    notice_s: float = 15.0
    idle_s: float = 180.0
    settle_s: float = 3.0


class Readiness(Struct):
    """What a router's `/health/ready` says."""

    ready: bool
    targets: dict[str, bool] = {}


def wait_until(find_fault: Callable[[], str | None], limit_s: float) -> None:
    """Look again and again until there is no fault any more.

    Raises:
        SiteError: the fault that is left after `limit_s`.
    """
    end = time.monotonic() + limit_s
    while (fault := find_fault()) is not None:
        if time.monotonic() > end:
            raise SiteError(f"{fault} after {limit_s:.0f} s")
        time.sleep(_POLL_S)


def wait_ready(services: Services, name: str, limit_s: float) -> None:
    """
    Raises:
        SiteError: it died, or is not ready in time; with the end of its log.
    """

    def find_fault() -> str | None:
        if services.has_died(name):
            raise SiteError(f"{name} died")
        answer = services.ask(name, "/health/ready")
        return None if answer is not None and answer.status == _READY else f"{name} is not ready"

    try:
        wait_until(find_fault, limit_s)
    except SiteError as exc:
        raise SiteError(f"{exc}: {services.last_words(name)}") from None


def read_targets(services: Services, router: str) -> Mapping[str, bool]:
    """Which targets a router sees up; nothing while it does not answer."""
    answer = services.ask(router, "/health/ready")
    return {} if answer is None else msgspec.json.decode(answer.content, type=Readiness).targets


def wait_targets(services: Services, router: str, wanted: set[str], limit_s: float) -> None:
    """
    Raises:
        SiteError: it does not see all of the wanted targets up in time.
    """

    def find_fault() -> str | None:
        targets = read_targets(services, router)
        missing = sorted(name for name in wanted if not targets.get(name))
        return f"{router} does not reach {', '.join(missing)}" if missing else None

    wait_until(find_fault, limit_s)


class Gauges:
    """A router's numbers at one moment.

    Raises:
        SiteError: it does not answer.
    """

    def __init__(self, services: Services, router: str) -> None:
        answer = services.ask(router, "/metrics")
        if answer is None:
            raise SiteError(f"{router} does not answer")
        families = text_string_to_metric_families(answer.content.decode())
        self._samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all series that have these labels."""
        return sum(
            one.value
            for one in self._samples
            if one.name == name and all(one.labels.get(key) == value for key, value in labels.items())
        )
