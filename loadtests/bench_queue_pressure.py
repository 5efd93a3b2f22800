"""
The part of `make bench-queue` that watches the threshold of a running router: its edge gets more than it can begin in
time, and then nothing, while the cloud rests. What routing would do is asked of `/v1/route` all along.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import httpx
import numpy as np

from loadtests.bench import Row, report
from loadtests.pair.questions import Split, generate
from loadtests.queueing.generator import Generator
from loadtests.site import Site, running_site
from router.config.lanes import Pressure
from router.decision import Tier
from router.query import Priority

SLOTS = 2
CLIENTS = 6 * SLOTS
PRESSURE = Pressure(enabled=True, objective_s=1.0, most_to_cloud=1.5, shift_per_s=0.5, return_per_s=0.25, window_s=5.0)
EVERY_S = 0.1
REST_S = PRESSURE.most_to_cloud / PRESSURE.return_per_s + 4 * PRESSURE.window_s
"""After the load, until the threshold must be back."""


@dataclass(frozen=True, slots=True)
class Look:
    """What `/v1/route` said; `at` in seconds from the start of the load."""

    at: float
    tier: Tier
    score: float
    threshold: float
    shift: float


async def watch(client: httpx.AsyncClient, seed: int, started: float, duration_s: float) -> list[Look]:
    """Ask at an even pace, each question once."""
    looks: list[Look] = []
    count = int(duration_s / EVERY_S)
    for number, question in enumerate(generate(seed, count, Split.TEST)):
        await asyncio.sleep(max(started + number * EVERY_S - time.perf_counter(), 0.0))
        messages = [{"role": role, "content": content} for role, content in question.messages]
        body = {"model": "auto", "messages": messages}
        said = (await client.post("/v1/route", json=body)).raise_for_status().json()
        at = time.perf_counter() - started
        looks.append(Look(at, Tier(said["tier"]), said["score"], said["threshold"], said["shift"]))
    return looks


async def press(site: Site, load_s: float, seed: int) -> list[Look]:
    """The load, and the rest after it."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=site.url, timeout=60, limits=limits, trust_env=False) as client:
        edge = Generator(client, Tier.EDGE, seed)
        await edge.saturate(SLOTS, 5.0, Priority.STANDARD)
        await Generator(client, Tier.CLOUD, seed).saturate(1, 5.0, Priority.STANDARD)
        async with asyncio.TaskGroup() as group:
            group.create_task(edge.saturate(CLIENTS, load_s, Priority.STANDARD))
            looking = group.create_task(watch(client, seed, time.perf_counter(), load_s + REST_S))
    return looking.result()


def pressure_rows(looks: Sequence[Look], load_s: float) -> list[Row]:
    """The issue's bars, and what the moved threshold did."""
    shifts = [look.shift for look in looks]
    most, least = max(shifts), min(shifts)
    shortest = min((later - earlier for earlier, later in pairwise(turning_times(looks))), default=float("inf"))
    scores = np.array([look.score for look in looks])
    rest, pressed = (float((scores > look.threshold).mean()) for look in (looks[0], min(looks, key=_shift)))
    reached = next((look.at for look in looks if look.shift <= 0.9 * least), float("nan"))
    back = next((look.at - load_s for look in looks if look.at > load_s and not look.shift), float("inf"))
    limits = -PRESSURE.most_to_cloud <= least and most <= PRESSURE.most_to_edge
    calm = shortest >= PRESSURE.window_s
    moved = f"{rest:.2f} -> {pressed:.2f}"
    return [
        Row("farthest shift, log-odds", f"{least:.2f}", f"-{PRESSURE.most_to_cloud:g} .. < 0", limits and least < 0),
        Row("nine tenths of it after", f"{reached:.1f} s", "-", holds=True),
        Row("of the questions to the cloud, at rest and pressed", moved, "more", pressed > rest),
        Row("back to nothing after the load", f"{back:.1f} s", f"<= {REST_S:g} s", back <= REST_S),
        Row("shift at the end", f"{shifts[-1]:.2f}", "0", shifts[-1] == 0),
        Row("turns at least so far apart", f"{shortest:.1f} s", f">= {PRESSURE.window_s:g} s", calm),
    ]


def turning_times(looks: Sequence[Look]) -> list[float]:
    """When the shift began to move the other way."""
    times: list[float] = []
    heading = 0.0
    for before, after in pairwise(looks):
        moved = float(np.sign(after.shift - before.shift))
        if moved and heading and moved != heading:
            times.append(before.at)
        heading = moved or heading
    return times


def _shift(look: Look) -> float:
    return look.shift


def _configure(site: Site) -> None:
    site.set_lane("edge-demo", slots=SLOTS)
    fields = {name: getattr(PRESSURE, name) for name in PRESSURE.__struct_fields__}
    site.configure("router", "pressure", **fields)


@click.command()
@click.option("--load-s", default=25.0, show_default=True, help="How long the edge has too much to do.")
@click.option("--seed", default=1, show_default=True)
def main(load_s: float, seed: int) -> None:
    """Measure on this machine; exits 1 when a bar does not hold."""
    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder), _configure) as site:
        looks = asyncio.run(press(site, load_s, seed))
    sys.exit(report("queue_pressure", pressure_rows(looks, load_s)))


if __name__ == "__main__":
    main()
