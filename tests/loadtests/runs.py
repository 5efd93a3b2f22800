"""Records and runs made by hand, for tests of what is computed from them."""

from collections.abc import Sequence
from typing import Any

from loadtests.swarm.measures import Table
from loadtests.swarm.record import Form, Origin, Record
from loadtests.swarm.run import About, Run
from loadtests.swarm.scenario import Open, Scenario
from loadtests.swarm.shapes import Steady
from loadtests.swarm.strain import Strain
from router.query import Priority

CALM = Strain(worker=0, busy=0.1, waited=0.0, lag_p99_ms=1.0, lag_most_ms=2.0)


def make_record(number: int, *, due: float = 0.0, late: float = 0.0, took: float = 0.1, **rest: Any) -> Record:
    """A right answer from the edge, unless said otherwise; times in seconds."""
    known: dict[str, Any] = {
        "form": Form.CHAT,
        "origin": Origin.EASY,
        "priority": Priority.STANDARD,
        "model": "auto",
        "status": 200,
        "right": True,
        "tier": "edge",
        "cache": "miss",
        "queue_ms": 10.0,
        "overhead_ms": 1.0,
    }
    sent = due + late
    return Record(number=number, worker=0, due=due, sent=sent, ended=sent + took, **{**known, **rest})


def make_table(records: Sequence[Record]) -> Table:
    """As columns."""
    return Table.of(records)


def make_run(records: Sequence[Record], **changes: Any) -> Run:
    """A run with these records."""
    scenario = Scenario(summary="one", arrival=Open(rate_per_s=1), shape=Steady(duration_s=10), **changes)
    about = About("one", "http://127.0.0.1:1", 0, "2026-01-01 00:00 UTC", "a machine", "2")
    return Run(about, scenario, records, [CALM])
