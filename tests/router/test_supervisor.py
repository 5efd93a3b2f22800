"""The parent of several processes, with processes that do little."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.demo import ROOT
from router.processes.supervisor import Child

PARENT = """
import os, signal, sys, time
from pathlib import Path
from router.processes.supervisor import Supervisor
folder = Path(sys.argv[1])
def work(index):
    with open(folder / f"{index}.starts", "a") as file:
        file.write(f"{os.getpid()} ")
    WORK
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0) if index >= 0 else None)
    (folder / f"{index}.up").touch()
    try:
        while True:
            time.sleep(60)
    except SystemExit as exc:
        return exc.code
released = (folder / "released").touch
sys.exit(Supervisor(2, work, (folder / "0.up").exists, released, stop_s=STOP_S).run())
"""


def start(folder: Path, work: str = "pass", stop_s: float = 10.0) -> "subprocess.Popen[str]":
    program = PARENT.replace("WORK", work).replace("STOP_S", str(stop_s))
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait(condition: object, limit_s: float = 15.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def starts(folder: Path, index: int) -> list[int]:
    file = folder / f"{index}.starts"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def test_one_that_dies_is_restarted_and_a_stop_ends_all(tmp_path: Path) -> None:
    parent = start(tmp_path)
    wait((tmp_path / "1.up").exists)
    os.kill(starts(tmp_path, 1)[0], 9)
    wait(lambda: len(starts(tmp_path, 1)) == 2)
    (tmp_path / "1.up").unlink()
    parent.terminate()

    _, said = parent.communicate(timeout=15)

    assert parent.returncode == 0
    assert "Process 1 ended with status -9; restarting it in 0.5 s." in said
    assert len(starts(tmp_path, 0)) == 1
    assert (tmp_path / "released").exists()


def test_a_first_one_that_cannot_start_ends_all_at_once(tmp_path: Path) -> None:
    parent = start(tmp_path, "return 3")

    _, said = parent.communicate(timeout=15)

    assert parent.returncode == 1
    assert said == ""
    assert len(starts(tmp_path, 0)) == 1
    assert starts(tmp_path, 1) == []


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    parent = start(tmp_path, "index = -1 if index == 1 else index", stop_s=0.5)
    wait((tmp_path / "-1.up").exists)
    parent.terminate()

    _, said = parent.communicate(timeout=15)

    assert parent.returncode == 1
    assert "Process 1 did not stop in time; killing it." in said


def test_pauses_grow_and_end() -> None:
    child = Child(0)

    pauses = [child.pause_s(float(now)) for now in range(6)]

    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, None]
    assert child.pause_s(1000.0) == pytest.approx(0.5)
