"""What the router needs for open streams, and that it does not need more with every request: benchmarks in short."""

from pathlib import Path

from loadtests.bench_streams import MOST_KB, measure
from loadtests.cores.servers import running_router, running_upstream
from loadtests.cores.upstream import Pace
from loadtests.prove_memory import Plan, look_at_tiers, prove, sections

TOKENS = 8
MOST_LEFT_BYTES = 400
"""What a request may leave behind on average; some 15 were seen, and one record of the log would be more."""


def test_open_streams_are_exact_and_small() -> None:
    (wave,) = measure(200, tokens=TOKENS, every_s=0.6)

    assert (wave.streams.exact, wave.streams.most_open) == (200, 200)
    assert wave.kb_each(200) <= 1.25 * MOST_KB  # of few, pages that are partly used weigh more


def test_memory_stays_when_what_is_bounded_is_full(tmp_path: Path) -> None:
    bounds = sections(tmp_path, memory_bytes=524_288, disk_bytes=4_194_304)
    with (
        running_upstream(tmp_path, Pace(TOKENS)) as upstream,
        running_router(tmp_path, upstream, tenants=20, **bounds) as router,
    ):
        filled, last = prove(router, upstream, Plan([2_000, 6_000], batch=2_000))
        held = look_at_tiers(router)

    assert held["memory"].evictions > held["memory"].entries
    assert held["disk"].writes + held["disk"].dropped == held["memory"].writes == 6_000
    growth = last.resident_bytes - filled.resident_bytes
    assert growth <= MOST_LEFT_BYTES * (last.requests - filled.requests)
