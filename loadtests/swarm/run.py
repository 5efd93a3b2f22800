"""A run: its folder, and the processes that make it."""

import os
import platform
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
from loadtests.ports import free_port
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


@dataclass(frozen=True, slots=True)
class Crew:
    """Who asks: `workers` processes here, `remote` ones that come to `port`; with neither, one without a master."""

    workers: int = 0
    remote: int = 0
    port: int = 5557

    @contextmanager
    def leading(self) -> Iterator[list[str]]:
        """Start the workers that are here; yields what their leader has to be told."""
        port = self.port if self.remote else free_port()
        # nobody but remote workers has to reach the port
        host = "*" if self.remote else "127.0.0.1"
        with _generators([["--join", f"127.0.0.1:{port}"]] * self.workers):
            yield ["--workers", str(self.workers + self.remote), "--bind", host, "--port", str(port)]


def make_run(
    scenario: Scenario,
    url: str,
    folder: Path,
    *,
    name: str = "",
    crew: Crew = Crew(),
    key_file: Path | None = None,
) -> Run:
    """Ask `url` (a router's, without `/v1`) what the scenario says, leave everything in `folder`, and read it.

    Raises:
        RunError: the generator failed; what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (RECORDS, STRAIN):
        (folder / old).unlink(missing_ok=True)
    began = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    about = About(name, url, crew.workers + crew.remote, began, _machine(), version("locust"))
    (folder / SCENARIO).write_bytes(msgspec.json.format(msgspec.json.encode(scenario)))
    (folder / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about)))
    command = ["--folder", str(folder), "--url", url, *(["--key-file", str(key_file)] if key_file else [])]
    with crew.leading() as led:
        _generate([*command, *led], scenario.shape.duration_s + scenario.answers.deadline_s + _GRACE_S)
    return Run.read(folder)


def generator(*arguments: str) -> list[str]:
    """The command of a generator process."""
    return [sys.executable, "-m", "loadtests.swarm.generator", *arguments]


def _generate(arguments: Sequence[str], limit_s: float) -> None:
    """Run the leading generator to its end."""
    try:
        done = subprocess.run(generator(*arguments), cwd=ROOT, stderr=subprocess.PIPE, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired as exc:
        raise RunError(f"the generator did not end within {limit_s:.0f} s; is the machine too small for it?") from exc
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise RunError(f"the generator failed: {said[-1]}")


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


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
