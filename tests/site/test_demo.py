"""`make demo`'s supervisor: it starts everything, says so, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.demo import ROOT, Ports
from loadtests.site import STORE, free_ports

_START_S = 120.0


def command(ports: Ports, work: Path) -> list[str]:
    """The supervisor on those ports."""
    options = [f"--{name.replace('_', '-')}-port={getattr(ports, name)}" for name in Ports.__slots__]
    return [sys.executable, "-m", "deploy.demo", "--store", str(STORE), "--work", str(work), *options]


@contextmanager
def demo(ports: Ports, work: Path) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """The running demo and all processes below it."""
    process = subprocess.Popen(
        command(ports, work), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    try:
        end = time.monotonic() + _START_S
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Ready: ") or time.monotonic() > end:
                break
        assert process.poll() is None, "the demo ended before it was ready"
        yield process, psutil.Process(process.pid).children(recursive=True)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


def alive(processes: list[psutil.Process], limit_s: float = 15.0) -> list[psutil.Process]:
    """Those that still run after a while."""
    _, left = psutil.wait_procs(processes, timeout=limit_s)
    return left


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_exits_0(tmp_path: Path, signum: signal.Signals) -> None:
    ports = free_ports()
    with demo(ports, tmp_path) as (process, below):
        assert len(below) >= 3
        assert httpx.get(f"http://127.0.0.1:{ports.router}/health/ready").json()["ready"]

        process.send_signal(signum)

        assert process.wait(40) == 0
        assert alive(below) == []


def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    with demo(free_ports(), tmp_path) as (process, below):
        process.kill()
        process.wait(10)

        assert alive(below, 30) == []


def test_a_dead_part_is_named_in_one_line_and_the_rest_is_stopped(tmp_path: Path) -> None:
    with demo(free_ports(), tmp_path) as (process, below):
        edge = next(one for one in below if "edge" in one.cmdline())
        os.kill(edge.pid, signal.SIGKILL)

        assert process.stdout is not None
        last = [line for line in process.stdout.read().splitlines() if line][-1]
        assert process.wait(40) == 1
        assert last.startswith("Error: edge stopped with status -9")
        assert alive(below) == []


def test_a_busy_port_is_named_with_its_option(tmp_path: Path) -> None:
    ports = free_ports()
    with socket.create_server(("127.0.0.1", ports.triton_grpc)):
        result = subprocess.run(
            command(ports, tmp_path), capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
        )

    assert result.returncode == 1
    assert result.stderr == (
        f"Error: Port {ports.triton_grpc} is busy; stop its owner, or choose another with --triton-grpc-port.\n"
    )


def test_missing_models_are_named(tmp_path: Path) -> None:
    listed = command(free_ports(), tmp_path)
    listed[listed.index("--store") + 1] = str(tmp_path / "empty")

    result = subprocess.run(listed, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)

    assert result.returncode == 1
    assert "hybrid models pull --all" in result.stderr
    assert result.stderr.count("\n") == 1
