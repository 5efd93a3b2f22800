"""`GET /v1/lanes`, for operators."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Final

from msgspec import Struct

from router.api.exchange import Service
from router.api.reports import Report
from router.lanes import LaneReport
from router.pressure import Statistics
from router.processes.siblings import AskLanes
from router.tickets import LaneStatistics

URL = "/v1/lanes"


class LanesReport(Struct, frozen=True):
    """Every lane, where load has moved the threshold, and which targets are up."""

    lanes: Sequence[LaneReport]
    pressure: Statistics
    targets: Mapping[str, bool]


def _report(service: Service) -> LanesReport:
    """This process's."""
    return LanesReport(service.lanes.statistics(), service.steering.statistics(), service.health.targets())


def _total(reports: Sequence[LanesReport]) -> LanesReport:
    """What they have is added up, their shifts are averaged, and a target is up that is so for one."""
    if len(reports) == 1:
        return reports[0]
    lanes = [
        LaneReport(same[0].target, same[0].kind, LaneStatistics.total([lane.now for lane in same]))
        for same in zip(*(report.lanes for report in reports), strict=True)
    ]
    shifts = [report.pressure for report in reports]
    pressure = Statistics(fmean(one.offset for one in shifts), sum(one.turns for one in shifts))
    targets = {name: any(report.targets.get(name) for report in reports) for name in reports[0].targets}
    return LanesReport(lanes, pressure, targets)


LANES: Final = Report(URL, "the lanes", LanesReport, AskLanes(), _report, _total)
