"""A run: its folder, and the processes that make it."""

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec import Struct

from deploy.demo import ROOT
from loadtests.swarm.measures import Table
from loadtests.swarm.record import RECORDS, SCENARIO, STRAIN, Record, read_records
from loadtests.swarm.scenario import Scenario
from loadtests.swarm.strain import Strain, list_strains

ABOUT = "about.json"
_STOP_S = 10.0
_GRACE_S = 120.0


class RunError(Exception):
    """A run that could not be made or read, in one line."""


class About(Struct, frozen=True):
    """Where and with what a run was made."""

    name: str
    url: str
    workers: int
    began: str
    machine: str
    locust: str


@dataclass(frozen=True)
class Run:
    """What a run left."""

    about: About
    scenario: Scenario
    records: Sequence[Record]
    strains: Sequence[Strain]

    @property
    def table(self) -> Table:
        """Its records as columns."""
        return Table.of(self.records)

    def complaints(self) -> list[str]:
        """What was wrong with the generator."""
        return list(list_strains(self.strains, self.table))

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """From its folder.

        Raises:
            RunError: there is none, or it is not whole.
        """
        try:
            return cls(
                msgspec.json.decode((folder / ABOUT).read_bytes(), type=About),
                msgspec.json.decode((folder / SCENARIO).read_bytes(), type=Scenario),
                read_records(folder / RECORDS),
                msgspec.json.decode((folder / STRAIN).read_bytes(), type=list[Strain]),
            )
        except OSError as exc:
            raise RunError(f"{exc.filename}: {exc.strerror}; give the folder of a finished run") from exc
        except msgspec.MsgspecError as exc:
            raise RunError(f"{folder}: not a run of this version ({exc}); make it again") from exc


def make_run(
    scenario: Scenario,
    url: str,
    folder: Path,
    *,
    name: str = "",
    workers: int = 0,
    remote: int = 0,
    port: int | None = None,
    key_file: Path | None = None,
) -> Run:
    """Ask `url` what the scenario says, and read what came of it.

    Args:
        scenario: What to ask.
        url: The router's, without `/v1`.
        folder: Where everything is left.
        name: The scenario's.
        workers: Processes here that ask; with 0 (and no remote ones) there is one, without a master.
        remote: Workers that will come from elsewhere.
        port: Where workers connect; else a free one.
        key_file: Holds the API key.

    Raises:
        RunError: the generator failed; what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (RECORDS, STRAIN):
        (folder / old).unlink(missing_ok=True)
    about = About(name, url, workers + remote, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", _machine(), version("locust"))
    (folder / SCENARIO).write_bytes(msgspec.json.format(msgspec.json.encode(scenario)))
    (folder / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about)))
    port = port or _free_port()
    command = ["--folder", str(folder), "--url", url, "--workers", str(workers + remote), "--port", str(port)]
    command += ["--key-file", str(key_file)] if key_file else []
    limit_s = scenario.shape.duration_s + scenario.answers.deadline_s + _GRACE_S
    with _generators([["--join", f"127.0.0.1:{port}"]] * workers):
        done = subprocess.run(generator(*command), cwd=ROOT, stderr=subprocess.PIPE, check=False, timeout=limit_s)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise RunError(f"the generator failed: {said[-1]}")
    return Run.read(folder)


def generator(*arguments: str) -> list[str]:
    """The command of a generator process."""
    return [sys.executable, "-m", "loadtests.swarm.generator", *arguments]


@contextmanager
def _generators(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Generator processes, ended with the block."""
    running = [subprocess.Popen(generator(*one), cwd=ROOT) for one in commands]
    try:
        yield
    finally:
        for one in running:
            try:
                one.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
