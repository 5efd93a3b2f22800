"""`hybrid top`: a running router's lanes, targets and caches, live."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from router.api.cache import URL as CACHE_URL
from router.api.lanes import URL as LANES_URL
from router.api.lanes import LanesReport
from router.cache.statistics import CacheReport
from router.lanes import LaneReport
from router.operating import Endpoint, endpoint_options, format_ratio, format_table, open_endpoint
from router.tickets import ClassStatistics

_ENTER, _LEAVE, _CLEAR = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H\x1b[J"
_MOST_TENANTS = 20
_HEAD = ("lane", "up", "run", "wait", "oldest", "mean wait", "service", "done", "refused", "shed", "expired", "left")


@click.command()
@endpoint_options
@click.option("--once", is_flag=True, help="Print once and end.")
@click.option("--every-s", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between.")
def top(url: str, key: str | None, key_file: Path | None, *, once: bool, every_s: float) -> None:
    """Watch lanes, targets and caches; Ctrl-C ends it.

    Counts are since the router started; `left` are clients that hung up while they waited.

    \b
    Examples:
      hybrid top
      hybrid top --once --url https://router.example --key-file operator.key
    """
    router = open_endpoint(url, key, key_file)
    view = draw(router)  # a wrong address or key is said before the screen is taken
    if once:
        click.echo(view)
        return
    with suppress(KeyboardInterrupt), _screen():
        while True:
            click.echo(f"{_CLEAR}{time.strftime('%H:%M:%S')}  {url}\n\n{view}", nl=False)
            time.sleep(every_s)
            try:
                view = draw(router)
            except click.ClickException as exc:
                view = exc.message


def draw(router: Endpoint) -> str:
    """The view as text.

    Raises:
        ClickException: the router does not answer, or not this key.
    """
    lanes, _ = router.ask("GET", LANES_URL, LanesReport)
    caches, _ = router.ask("GET", CACHE_URL, CacheReport)
    rows: list[tuple[str, ...]] = [_HEAD]
    for lane in lanes.lanes:
        rows.append(_lane_row(lane, up=lanes.targets.get(lane.target, False)))
        rows += [_class_row(f"  {p.value}", one) for p, one in lane.now.classes.items() if _used(one)]
    parts = [format_table(rows)]
    if caches.caches:
        hits = [
            (one.kind.value, f"{one.hits:,}", f"{one.misses:,}", format_ratio(one.hits, one.misses))
            for one in caches.caches
        ]
        parts.append(format_table([("cache", "hits", "misses", "ratio"), *hits]))
    offset, turns = lanes.pressure.offset, lanes.pressure.turns
    parts.append(f"threshold moved by {offset:+.2f} log-odds, turned round {turns} times")
    waiting = [
        (f"{t.tenant} ({t.priority.value}, {lane.target})", str(t.waiting), f"{t.waiting_tokens:,.0f}")
        for lane in lanes.lanes
        for t in lane.now.tenants
        if t.waiting
    ]
    if waiting:
        parts.append(format_table([("tenant", "wait", "tokens"), *waiting[:_MOST_TENANTS]]))
    return "\n\n".join(parts)


def _lane_row(lane: LaneReport, *, up: bool) -> tuple[str, ...]:
    now = lane.now
    head = (f"{lane.target} {lane.kind.value}", "yes" if up else "NO", f"{now.running}/{now.slots}", str(now.backlog))
    return (*head, *("",) * (len(_HEAD) - len(head)))


def _class_row(name: str, one: ClassStatistics) -> tuple[str, ...]:
    count = one.count
    return (
        name,
        "",
        "",
        str(one.waiting),
        _seconds(one.oldest_wait_s),
        _seconds(count.wait_s / count.started) if count.started else "-",
        _seconds(count.service_s / count.done) if count.done else "-",
        *(f"{n:,}" for n in (count.done, count.refused, count.shed, count.expired, count.cancelled)),
    )


def _used(one: ClassStatistics) -> bool:
    count = one.count
    return any((one.waiting, count.started, count.refused, count.expired))


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own, so that the terminal is afterwards as it was."""
    click.echo(_ENTER, nl=False)
    try:
        yield
    finally:
        click.echo(_LEAVE, nl=False)
