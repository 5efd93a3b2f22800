"""Two replicas of the router under steady load over HTTP, and what may befall the cache tiers under the first.

The replica shares nothing with the first but the server: what it was asked, the first then finds in the shared tier.
Memory holds a few dozen records, so most hits have to come from the disk.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from loadtests.cache_traffic import Ask, BrokenStreamError, ask, make_chat, make_embedding, open_client
from loadtests.garbage_server import serving_garbage
from loadtests.redis_server import RedisServer, running_redis
from loadtests.site import Site, running_site
from loadtests.small_disk import ImageDisk, MountError, mounted
from router.cache import TierName, TierStatistics

_MEMORY_BYTES: Final = 131_072
_DISK_BYTES: Final = 4_194_304
_DISK_MEGABYTES: Final = 16
_BREAKER_S: Final = 1.0
_HOT: Final = 16
_WARM: Final = 400
_MOST_TOKENS: Final = 6
_BATCH: Final = 4
_REPLICA_EVERY_S: Final = 0.5
_RIPE: Final = 8
_FILLING: Final = 8


class Want(StrEnum):
    """What a request is meant to meet when nothing is wrong."""

    MEMORY = "memory"
    DISK = "disk"
    SHARED = "shared"
    EMBEDDING = "embedding"
    CHAT = "chat"


SHARES: Final = {Want.MEMORY: 0.5, Want.DISK: 0.28, Want.SHARED: 0.1, Want.EMBEDDING: 0.07, Want.CHAT: 0.05}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request; the time is from when it was due. `failure` is empty for a whole answer with status 200."""

    want: Want
    took_ms: float
    overhead_ms: float
    cache: str
    failure: str = ""


class Traffic:
    """The same requests for the same seed, but for those that wait for the replica."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._number = 1_000_000 * (seed + 1)
        self._ripe: deque[str] = deque(maxlen=4 * _RIPE)
        self.hot = [
            make_chat(self._number + n, "edge", stream=n % 2 == 1, most_tokens=_MOST_TOKENS) for n in range(_HOT)
        ]
        self.warm = [self._make(Want.CHAT if n % 2 else Want.EMBEDDING) for n in range(_WARM)]

    def draw(self) -> tuple[Want, Ask]:
        """The next request."""
        want = self._rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
        if want is Want.MEMORY:
            return want, self._rng.choice(self.hot)
        if want is Want.DISK:
            return want, self._rng.choice(self.warm)
        if want is Want.SHARED and len(self._ripe) >= _RIPE:
            text = self._ripe[-_RIPE]  # later ones may not be written yet, earlier ones may be lost
            self._ripe.remove(text)
            return want, make_embedding([text], "edge")
        return (want, self._make(want)) if want is Want.CHAT else (Want.EMBEDDING, self._make(Want.EMBEDDING))

    def draw_for_replica(self) -> list[str]:
        """Texts that nobody asked for yet; say `ripen` when the replica has been asked."""
        return [self._make_text() for _ in range(_BATCH)]

    def ripen(self, texts: list[str]) -> None:
        """The replica has written them, or will have before the next ones."""
        self._ripe.extend(texts)

    def _make(self, want: Want) -> Ask:
        if want is Want.EMBEDDING:
            return make_embedding([self._make_text()], "edge")
        self._number += 1
        return make_chat(self._number, "edge", stream=self._number % 2 == 1, most_tokens=_MOST_TOKENS)

    def _make_text(self) -> str:
        self._number += 1
        return f"Text {self._number} of many that are embedded."


class FaultyPlace:
    """The site with all that can be broken."""

    def __init__(self, site: Site, replica_url: str, redis: RedisServer, disk: ImageDisk | None) -> None:
        self.site = site
        self.redis = redis
        self.disk = disk
        self._replica_url = replica_url
        self.traffic = Traffic(seed=0)

    def clients(self) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
        """For the router and for its replica."""
        return open_client(self.site.url), open_client(self._replica_url)


@contextlib.contextmanager
def faulty_place(work: Path) -> Iterator[FaultyPlace]:
    """Everything running; without a disk of its own where none can be mounted.

    Raises:
        NoServerError: there is no Redis.
    """
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(running_redis(work))
        folder = work / "disk"
        try:
            disk = ImageDisk(folder, _DISK_MEGABYTES)
            stack.enter_context(mounted(disk))
        except MountError:
            disk = None
        (folder / "cache").mkdir(parents=True)
        urls: list[str] = []

        def configure(site: Site) -> None:
            memory, shared = {"most_bytes": _MEMORY_BYTES}, {"url": redis.url}
            tiers: dict[str, Any] = {"memory": memory, "shared": shared, "breaker_s": _BREAKER_S}
            site.configure("router", "cache", tiers=tiers)
            urls.append(site.add_router("replica"))
            with_disk = {**tiers, "disk": {"folder": str(folder / "cache"), "most_bytes": _DISK_BYTES}}
            site.configure("router", "cache", tiers=with_disk)

        site = stack.enter_context(running_site(work / "site", configure))
        site.start("replica")
        yield FaultyPlace(site, urls[0], redis, disk)


class Load:
    """`async with Load(place, per_s) as load`: asks from then on, the replica too; what came of it is in `outcomes`."""

    def __init__(self, place: FaultyPlace, per_s: float) -> None:
        self._place = place
        self._per_s = per_s
        self._client, self._replica = place.clients()
        self._group = asyncio.TaskGroup()
        self._jobs: list[asyncio.Task[None]] = []
        self.outcomes: list[Outcome] = []

    async def __aenter__(self) -> "Load":
        await self._client.__aenter__()
        await self._replica.__aenter__()
        await self._fill()
        await self._group.__aenter__()
        self._jobs = [self._group.create_task(self._ask_steadily()), self._group.create_task(self._ask_replica())]
        return self

    async def __aexit__(self, *error: Any) -> None:
        for job in self._jobs:
            job.cancel()
        await self._group.__aexit__(*error)
        await self._client.__aexit__()
        await self._replica.__aexit__()

    async def watch(self, for_s: float) -> list[Outcome]:
        """What is answered in the next seconds."""
        begin = len(self.outcomes)
        await asyncio.sleep(for_s)
        return self.outcomes[begin:]

    async def look_at(self, name: TierName) -> TierStatistics:
        """A tier of the router."""
        try:
            answer = await self._client.get("/v1/cache")
        except httpx.RemoteProtocolError:  # the server closed a connection that had been idle for as long as it allows
            answer = await self._client.get("/v1/cache")
        tiers = answer.raise_for_status().json()["tiers"]
        return next(tier for tier in msgspec.convert(tiers, list[TierStatistics]) if tier.tier is name)

    async def _fill(self) -> None:
        """So that what is to be hit is there."""
        wanted = iter([*self._place.traffic.hot, *self._place.traffic.warm, *self._place.traffic.hot])

        async def work() -> None:
            for request in wanted:
                await ask(self._client, request)

        async with asyncio.TaskGroup() as group:
            for _ in range(_FILLING):
                group.create_task(work())

    async def _ask_steadily(self) -> None:
        """Whatever becomes of those before: a slow answer keeps none waiting."""
        due = time.perf_counter()
        while True:
            due += 1 / self._per_s
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            want, request = self._place.traffic.draw()
            self._group.create_task(self._ask_once(want, request, due))

    async def _ask_once(self, want: Want, request: Ask, due: float) -> None:
        overhead_ms, cache, failure = 0.0, "", ""
        try:
            answer = await ask(self._client, request)
            overhead_ms, cache = answer.overhead_ms, answer.cache
            if answer.status != httpx.codes.OK:
                failure = f"status {answer.status}"
        except (httpx.HTTPError, BrokenStreamError) as exc:
            failure = f"{type(exc).__name__}: {exc}"
        took_ms = (time.perf_counter() - due) * 1e3
        self.outcomes.append(Outcome(want, took_ms, overhead_ms, cache, failure))

    async def _ask_replica(self) -> None:
        while True:
            texts = self._place.traffic.draw_for_replica()
            await ask(self._replica, make_embedding(texts, "edge"))
            self._place.traffic.ripen(texts)
            await asyncio.sleep(_REPLICA_EVERY_S)


Break = Callable[[FaultyPlace], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a tier while its context is entered; `shows`: the router must have noticed."""

    name: str
    tier: TierName
    begin: Break
    shows: bool = True


@contextlib.asynccontextmanager
async def stopped(place: FaultyPlace) -> AsyncIterator[None]:
    """Nobody listens."""
    place.redis.stop()
    yield
    await asyncio.to_thread(place.redis.start)


@contextlib.asynccontextmanager
async def hung(place: FaultyPlace) -> AsyncIterator[None]:
    """It takes everything and answers nothing."""
    place.redis.hang()
    try:
        yield
    finally:
        place.redis.go_on()


@contextlib.asynccontextmanager
async def emptied(place: FaultyPlace) -> AsyncIterator[None]:
    """Everything in it is gone."""
    await asyncio.to_thread(place.redis.empty)
    yield


@contextlib.asynccontextmanager
async def restarted(place: FaultyPlace) -> AsyncIterator[None]:
    """It is killed and back at once, empty."""
    place.redis.stop()
    await asyncio.to_thread(place.redis.start)
    yield


@contextlib.asynccontextmanager
async def replaced(place: FaultyPlace) -> AsyncIterator[None]:
    """Something else listens there, and answers nonsense."""
    place.redis.stop()
    async with serving_garbage(place.redis.port):
        yield
    await asyncio.to_thread(place.redis.start)


@contextlib.asynccontextmanager
async def full(place: FaultyPlace) -> AsyncIterator[None]:
    """There is no room for a byte."""
    if place.disk is not None:
        ballast = await asyncio.to_thread(place.disk.fill)
        try:
            yield
        finally:
            ballast.unlink()


@contextlib.asynccontextmanager
async def protected(place: FaultyPlace) -> AsyncIterator[None]:
    """Nothing can be written, by who has files open neither."""
    if place.disk is not None:
        place.disk.protect(place.disk.folder / "cache", protected=True)
        try:
            yield
        finally:
            place.disk.protect(place.disk.folder / "cache", protected=False)


SHARED_FAULTS: Final = (
    Fault("stopped", TierName.SHARED, stopped),
    Fault("hung", TierName.SHARED, hung),
    Fault("emptied", TierName.SHARED, emptied, shows=False),
    Fault("restarted", TierName.SHARED, restarted, shows=False),
    Fault("nonsense", TierName.SHARED, replaced),
)
DISK_FAULTS: Final = (
    Fault("full", TierName.DISK, full),
    Fault("read-only", TierName.DISK, protected),
)


async def wait_recovered(load: Load, tier: TierName, limit_s: float) -> float:
    """Seconds until the tier is let in again, and both takes records and has them; `inf` if that takes too long."""
    begun = time.monotonic()
    before = await load.look_at(tier)
    while (passed := time.monotonic() - begun) < limit_s:
        now = await load.look_at(tier)
        if not now.open and now.writes > before.writes and now.hits > before.hits:
            return passed
        await asyncio.sleep(0.1)
    return float("inf")
