"""
The process that asks, with locust: alone, as the master of workers, or as one of them. Importing locust replaces
Python's sockets and sleeps by gevent's, so this is always a process of its own.

A worker needs nothing but the master's address: the scenario comes from there, and requests and arrivals are drawn from
it again in each worker, which takes every k-th. Records go back as they come.
"""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import gevent
import locust
import msgspec
from gevent.event import Event
from locust.runners import MasterRunner, Runner

from loadtests.swarm.arrivals import draw_scheduled
from loadtests.swarm.record import RECORDS, SCENARIO, STRAIN, Record, Recorder, recording
from loadtests.swarm.scenario import Closed, Scenario
from loadtests.swarm.strain import Strain
from loadtests.swarm.users import EVERY_USER, LOOPING, Plan, Player, ScheduledUser, Stage, UserCounts

_FLUSH_S = 0.5
_GREET_S = 0.2
_LEAD_S = 0.5
"""Between the plan and the first arrival: workers draw their requests."""
_TAIL_S = 15.0
_LEAVE_S = 3.0


class Hand:
    """A worker's side: plays the plan that it is sent, and sends records until it is told to end."""

    def __init__(self, stage: Stage, runner: Runner) -> None:
        self._stage = stage
        self._runner = runner
        self.planned = Event()
        self.ended = Event()
        runner.register_message("plan", self._prepare)
        runner.register_message("end", self._end)
        stage.events.test_stop.add_listener(self._end)

    def _prepare(self, msg: Any, **_: object) -> None:
        self._stage.player = Player(msgspec.msgpack.decode(msg.data["plan"], type=Plan))
        self._watching = gevent.spawn(self._stage.player.watch.run)
        self._flushing = gevent.spawn(self._keep_flushing)
        self.planned.set()
        self._runner.send_message("ready", {})

    def _keep_flushing(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        if taken := self._stage.player.take():
            self._runner.send_message("records", {"records": taken})

    def _end(self, **_: object) -> None:
        if self.ended.is_set():
            return
        self._watching.kill()
        self._flushing.kill()
        self._flush()
        player = self._stage.player
        player.asker.close()
        self._runner.send_message("ended", {"strain": msgspec.msgpack.encode(player.watch.end(player.plan.worker))})
        self.ended.set()


class Lead:
    """The other side: sends plans, keeps records, knows when it is over."""

    def __init__(self, runner: Runner, scenario: Scenario, recorder: Recorder) -> None:
        self._runner = runner
        self._scenario = scenario
        self._recorder = recorder
        self._crew: dict[str, None] = {}
        self._ready = 0
        self.strains: list[Strain] = []
        runner.register_message("here", self._welcome)
        runner.register_message("records", self._record)
        runner.register_message("ready", self._count_ready)
        runner.register_message("ended", self._keep_strain)

    def run(self, url: str, key: str, workers: int, join_s: float) -> None:
        """The whole run.

        Raises:
            TimeoutError: workers do not come, or do not end.
        """
        runner, scenario = self._runner, self._scenario
        names: Sequence[str | None] = [None]
        if isinstance(runner, MasterRunner):
            _wait(lambda: len(self._crew) >= workers, join_s, f"{workers} workers did not connect")
            names = list(self._crew)[:workers]
        starts_at = time.time() + _LEAD_S
        for index, name in enumerate(names):
            plan = Plan(url, scenario, key, index, len(names), starts_at)
            runner.send_message("plan", {"plan": msgspec.msgpack.encode(plan)}, name)
        _wait(lambda: self._ready >= len(names), _TAIL_S, "workers did not take the plan")
        if isinstance(scenario.arrival, Closed):
            gevent.sleep(max(starts_at - time.time(), 0.0))
            runner.start_shape()
            if (playing := runner.shape_greenlet) is not None:
                playing.join()
        else:
            runner.start(len(names), spawn_rate=len(names))
            limit_s = scenario.shape.duration_s + scenario.answers.deadline_s + _TAIL_S
            count = len(draw_scheduled(scenario))
            _wait(lambda: self._recorder.count >= count, limit_s, f"not all of {count} requests were asked")
            runner.send_message("end", {})
        _wait(lambda: len(self.strains) >= len(names), _TAIL_S, "workers did not end")

    def _welcome(self, msg: Any, **_: object) -> None:
        self._crew[msg.node_id] = None

    def _record(self, msg: Any, **_: object) -> None:
        self._recorder.write(msgspec.msgpack.decode(msg.data["records"], type=list[Record]))

    def _count_ready(self, **_: object) -> None:
        self._ready += 1

    def _keep_strain(self, msg: Any, **_: object) -> None:
        self.strains.append(msgspec.msgpack.decode(msg.data["strain"], type=Strain))


def lead(folder: Path, url: str, key: str, workers: int, address: tuple[str, int], join_s: float) -> None:
    """Run `folder`'s scenario and leave records and strains there; `workers` 0: ask from this process.

    Raises:
        TimeoutError: workers do not come, or do not end.
    """
    scenario = msgspec.json.decode((folder / SCENARIO).read_bytes(), type=Scenario)
    closed = isinstance(scenario.arrival, Closed)
    users = _weigh(scenario) if closed else [ScheduledUser]
    stage = Stage(
        user_classes=list(users),
        shape_class=UserCounts(scenario) if closed else None,
        stop_timeout=scenario.answers.deadline_s,
        catch_exceptions=False,
    )
    runner: Runner
    if workers:
        runner = stage.create_master_runner(*address)
    else:
        runner = stage.create_local_runner()
        Hand(stage, runner)
    with recording(folder / RECORDS) as recorder:
        leading = Lead(runner, scenario, recorder)
        leading.run(url, key, workers, join_s)
        runner.quit()
    strains = sorted(leading.strains, key=lambda one: one.worker)
    (folder / STRAIN).write_bytes(msgspec.json.format(msgspec.json.encode(strains)))


def join(address: str) -> None:
    """Work for a master until it ends."""
    host, _, port = address.rpartition(":")
    stage = Stage(user_classes=list(EVERY_USER), catch_exceptions=False)
    runner = stage.create_worker_runner(host, int(port))
    hand = Hand(stage, runner)
    # a worker counts as connected for locust before it can take a plan: it says itself when it can
    while not hand.planned.wait(_GREET_S):
        runner.send_message("here", {})
    hand.ended.wait()
    runner.greenlet.join(timeout=_LEAVE_S)


def _weigh(scenario: Scenario) -> list[type[locust.User]]:
    """The looping users, as many of each as the scenario's forms say."""
    return [
        type(user.__name__, (user,), {"weight": scenario.forms[user.form], "form": user.form})
        for user in LOOPING
        if scenario.forms.get(user.form)
    ]


def _wait(over: Any, limit_s: float, complaint: str) -> None:
    with gevent.Timeout(limit_s, TimeoutError(complaint)):
        while not over():
            gevent.sleep(0.05)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Holds scenario.json; records are left there.")
@click.option("--url", default="", help="The router's, without /v1.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Holds the API key.")
@click.option("--workers", default=0, help="Lead so many; 0 asks from this process.")
@click.option("--bind", default="127.0.0.1", help="Where workers connect: * for those on other machines.")
@click.option("--port", default=5557, help="The same.")
@click.option("--join-s", default=60.0, help="How long to wait for workers.")
@click.option("--join", "address", help="Work for the master at HOST:PORT.")
def main(
    folder: Path,
    url: str,
    key_file: Path | None,
    workers: int,
    bind: str,
    port: int,
    join_s: float,
    address: str | None,
) -> None:
    """Started by `python -m loadtests.swarm`."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if address:
        join(address)
        return
    try:
        lead(folder, url, key_file.read_text().strip() if key_file else "", workers, (bind, port), join_s)
    except TimeoutError as exc:
        sys.exit(f"{exc}.")


if __name__ == "__main__":
    main()
