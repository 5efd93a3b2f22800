"""
`make prove-cache-kill`: kill -9 of a running router while it answers and writes, again and again on the same disk.

Each request is asked for once, by many clients at a time, of edge and cloud, whole and streamed, and embeddings. After
each kill what was asked is asked again with `only-if-cached`, half of the chats in the other form: what comes must be,
to the byte, what came at first (of a stream: the answer that it makes). A run that is broken off goes on where it was,
with the same `--folder`.
"""

import asyncio
import random
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec

from deploy.demo import Ports
from edge.engine.files import replace_file
from loadtests.bench import Row, report
from loadtests.cache_traffic import Ask, BrokenStreamError, ask, make_chat, make_embedding, open_client
from loadtests.site import Site, free_ports, running_site

_CLIENTS = 10
_SHORTEST_S = 0.1
_LONGEST_S = 1.0
_EARLIER = 60
_ASKED_UNSAVED = 10_000
_TEXTS = 8
_MOST_TOKENS = 8
_DISK_BYTES = 8_388_608
_MEMORY_BYTES = 65_536
_PATIENT_MS = 200.0
_NOT_CACHED = 504


class Progress(msgspec.Struct):
    """What was seen so far: of each request that was answered the digest of its answer, and which to look at next."""

    ports: Ports
    kills: int = 0
    asked: int = 0
    broken_off: int = 0
    hits: int = 0
    misses: int = 0
    wrong: int = 0
    failed: int = 0
    damaged: int = 0
    answers: dict[int, str] = msgspec.field(default_factory=dict)
    latest: list[int] = msgspec.field(default_factory=list)

    def judge(self, number: int, body: bytes) -> None:
        """A stored answer came: the one that came at first, or, if that was lost with its connection, the first."""
        digest = sha256(body).hexdigest()
        if self.answers.setdefault(number, digest) == digest:
            self.hits += 1
        else:
            self.wrong += 1


def make_request(number: int) -> Ask:
    """The request of a number: four in six are chats."""
    sort, model = number % 3, ("edge", "cloud")[number // 3 % 2]
    if sort < 2:
        return make_chat(number, model, stream=sort == 1, most_tokens=_MOST_TOKENS)
    return make_embedding([f"Text {number}.{place} of a batch." for place in range(_TEXTS)], model)


async def write_until_killed(site: Site, progress: Progress, after_s: float) -> None:
    """Ask as fast as the site answers, and kill its router in the midst of it."""
    progress.latest = []
    async with open_client(site.url) as client, asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(_ask_on(client, progress))
        await asyncio.sleep(after_s)
        site.kill("router")


async def _ask_on(client: httpx.AsyncClient, progress: Progress) -> None:
    while True:
        number = progress.asked
        progress.asked += 1
        progress.latest.append(number)
        try:
            answer = await ask(client, make_request(number))
        except (httpx.HTTPError, BrokenStreamError):
            progress.broken_off += 1
            return
        if answer.status != httpx.codes.OK:
            progress.failed += 1
        elif answer.cache != "miss":  # nobody asked for it before
            progress.wrong += 1
        else:
            progress.answers[number] = sha256(answer.body).hexdigest()


async def look_again(site: Site, progress: Progress, rng: random.Random) -> None:
    """Ask for what the last router was asked, and for some of what those before it were, without any work."""
    earlier = sorted(progress.answers.keys() - set(progress.latest))
    numbers = [*progress.latest, *rng.sample(earlier, min(_EARLIER, len(earlier)))]
    async with open_client(site.url) as client:
        for number in numbers:
            request = make_request(number)
            answer = await ask(
                client, request.other() if rng.random() < 0.5 else request, cache_control="only-if-cached"
            )
            if answer.status == _NOT_CACHED:
                progress.misses += 1
            elif answer.status == httpx.codes.OK and answer.cache == "hit":
                progress.judge(number, answer.body)
            else:
                progress.failed += 1
        tiers = (await client.get("/v1/cache")).raise_for_status().json()["tiers"]
        progress.damaged += sum(tier["corrupt"] for tier in tiers)


def prove(folder: Path, kills: int) -> Progress:
    """Go on until so many kills are done."""
    state = folder / "progress.json"
    progress = msgspec.json.decode(state.read_bytes(), type=Progress) if state.exists() else Progress(free_ports())
    if progress.kills >= kills:
        return progress
    progress.asked += _ASKED_UNSAVED  # by a router that was not killed here
    # the targets' addresses are part of every key
    with running_site(folder / "site", _configure, progress.ports) as site:
        while progress.kills < kills:
            rng = random.Random(f"kill/{progress.kills}")
            asyncio.run(write_until_killed(site, progress, rng.uniform(_SHORTEST_S, _LONGEST_S)))
            site.start("router")
            for target in ("edge-demo", "cloud-demo"):
                site.wait_target(target, up=True)
            asyncio.run(look_again(site, progress, rng))
            progress.kills += 1
            replace_file(state, msgspec.json.encode(progress))
            if progress.kills % 10 == 0:
                click.echo(f"{progress.kills} kills: {_numbers(progress)}", err=True)
    return progress


def _configure(site: Site) -> None:
    """A disk that is full before long, hardly any memory, and patience with a busy machine."""
    (site.work / "cache").mkdir(exist_ok=True)
    tiers: dict[str, Any] = {
        "memory": {"most_bytes": _MEMORY_BYTES},
        "disk": {"folder": "cache", "most_bytes": _DISK_BYTES},
        "read_ms": _PATIENT_MS,
    }
    site.configure("router", "cache", tiers=tiers)


def _numbers(progress: Progress) -> str:
    names = ("broken_off", "hits", "misses", "wrong", "failed", "damaged")
    return f"answered {len(progress.answers):,}, " + ", ".join(f"{name} {getattr(progress, name):,}" for name in names)


@click.command(context_settings={"show_default": True})
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the disk and the progress are.")
@click.option("--kills", default=200)
def main(folder: Path, kills: int) -> None:
    """Kill a router that writes, and ask the next one for what it left."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = prove(folder.absolute(), kills)
    sys.exit(
        report(
            "cache-kill",
            [
                Row("kills", str(seen.kills), "-", holds=True),
                Row("requests answered, broken off", f"{len(seen.answers):,}, {seen.broken_off:,}", "-", holds=True),
                Row(
                    "asked again: hits, misses",
                    f"{seen.hits:,}, {seen.misses:,}",
                    "some hits",
                    seen.hits > 0,
                ),
                Row("wrong", str(seen.wrong), "0", seen.wrong == 0),
                Row("failed, damaged", f"{seen.failed}, {seen.damaged}", "0, 0", seen.failed == seen.damaged == 0),
            ],
        )
    )


if __name__ == "__main__":
    main()
