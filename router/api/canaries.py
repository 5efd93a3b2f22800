"""`GET /v1/canaries`, for operators: two versions side by side."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from router.api.exchange import Service
from router.api.reports import Report
from router.lanes import Kind
from router.processes.siblings import AskCanaries

URL = "/v1/canaries"


class VersionReport(Struct, frozen=True):
    """One of two versions since the router started: generations begun and done, with the mean time in their slot.

    `failed` calls brought nothing, or not even a stream's first piece; another version or tier may have answered then.
    """

    target: str
    version: str
    up: bool
    share: float
    started: int
    done: int
    failed: int
    mean_s: float | None
    prompt_tokens: int
    completion_tokens: int


class CanaryReport(Struct, frozen=True):
    """A target and its canary."""

    stable: VersionReport
    canary: VersionReport


class CanariesReport(Struct, frozen=True):
    """All pairs."""

    pairs: Sequence[CanaryReport]


def _report(service: Service) -> CanariesReport:
    """This process's."""
    canaries = service.canaries
    pairs = [
        CanaryReport(
            _report_version(service, stable, 1.0 - canaries.share(name)),
            _report_version(service, name, canaries.share(name)),
        )
        for name, stable in canaries.pairs.items()
    ]
    return CanariesReport(pairs)


def _total(reports: Sequence[CanariesReport]) -> CanariesReport:
    """Of all processes."""
    pairs = zip(*(report.pairs for report in reports), strict=True)
    return CanariesReport(
        [CanaryReport(_sum_version([p.stable for p in same]), _sum_version([p.canary for p in same])) for same in pairs]
    )


def _sum_version(reports: Sequence[VersionReport]) -> VersionReport:
    """Name, version and share are those of the first: all look at the same target and the same file."""
    done = sum(one.done for one in reports)
    return replace(
        reports[0],
        up=any(one.up for one in reports),
        started=sum(one.started for one in reports),
        done=done,
        failed=sum(one.failed for one in reports),
        mean_s=sum(one.done * (one.mean_s or 0.0) for one in reports) / done if done else None,
        prompt_tokens=sum(one.prompt_tokens for one in reports),
        completion_tokens=sum(one.completion_tokens for one in reports),
    )


def _report_version(service: Service, target: str, share: float) -> VersionReport:
    lanes = [one for one in service.lanes.statistics() if (one.target, one.kind) == (target, Kind.CHAT)]
    counts = [each.count for lane in lanes for each in lane.now.classes.values()]
    done = sum(count.done for count in counts)
    tokens = service.telemetry.tokens(service.config.targets[target].tier, target)
    return VersionReport(
        target=target,
        version=service.health.versions()[target],
        up=target in service.health.up(),
        share=share,
        started=sum(count.started for count in counts),
        done=done,
        failed=service.telemetry.failures(target),
        mean_s=sum(count.service_s for count in counts) / done if done else None,
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
    )


CANARIES: Final = Report(URL, "the canaries", CanariesReport, AskCanaries(), _report, _total)
