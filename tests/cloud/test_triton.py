"""The launcher as its users meet it: a process that gets signals, and leaves nothing behind."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cloud.config import load_config
from cloud.installation import InstallationError, find_installation
from cloud.triton import serving

CONFIG_PBTXT = """
backend: "python"
input [ { name: "x" data_type: TYPE_BOOL dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_BOOL dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""

IDLE = """
class TritonPythonModel:
    def execute(self, requests):
        return []
"""

# What a decode loop does that is still running at exit.
STUBBORN = (
    IDLE
    + """
    def finalize(self):
        import threading
        threading.Event().wait()
"""
)

BROKEN = "raise RuntimeError('the weights are gone')"


def write_config(folder: Path, model: str, **settings: object) -> Path:
    version = folder / "models" / "it" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(model)
    (version.parent / "config.pbtxt").write_text(CONFIG_PBTXT)
    lines = {"repositories": "[models]", "http_port": 0, "grpc_port": 0, "metrics_port": 0, **settings}
    path = folder / "triton.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


@dataclass
class Launched:
    launcher: subprocess.Popen[str]
    family: list[psutil.Process]
    """Everything the launcher started."""
    traces: list[Path]
    """The run directory and the shared memory."""

    @property
    def server(self) -> psutil.Process:
        return next(each for each in self.family if each.name() == "tritonserver")

    def await_nothing_left(self, within_s: float) -> None:
        limit = time.monotonic() + within_s
        while (left := self._left()) and time.monotonic() < limit:
            time.sleep(0.01)
        assert left == []

    def _left(self) -> list[psutil.Process | Path]:
        return [*filter(_runs, self.family), *(path for path in self.traces if path.exists())]


def _runs(process: psutil.Process) -> bool:
    # A zombie is dead; how soon it is buried depends on the machine's first process.
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def launch(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cloud", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[[str], Launched]]:
    with contextlib.ExitStack() as stack:

        def start(model: str) -> Launched:
            launcher = launch("--config", str(write_config(tmp_path, model, exit_timeout_s=1)))
            stack.enter_context(launcher)
            stack.callback(launcher.kill)
            assert launcher.stdout is not None
            assert "Triton is ready" in launcher.stdout.readline()
            family = psutil.Process(launcher.pid).children(recursive=True)
            assert sorted(each.name() for each in family) == ["sh", "triton_python_backend_stub", "tritonserver"]
            commands = " ".join(word for each in family for word in each.cmdline())
            (folder,) = set(re.findall(r"/\S*/hybrid-triton-\w+", commands))
            regions = list(Path("/dev/shm").glob(Path(folder).name + "*"))
            assert regions
            return Launched(launcher, family, [Path(folder), *regions])

        yield start


def test_sigterm_ends_everything_and_exits_with_0(launched: Callable[[str], Launched]) -> None:
    it = launched(IDLE)

    it.launcher.terminate()

    assert it.launcher.wait(10) == 0
    it.await_nothing_left(within_s=0)


def test_a_server_that_hangs_at_exit_is_killed_in_time(launched: Callable[[str], Launched]) -> None:
    it = launched(STUBBORN)
    it.server.suspend()

    started = time.monotonic()
    it.launcher.send_signal(signal.SIGINT)

    assert it.launcher.wait(15) == 0
    assert time.monotonic() - started < 10
    it.await_nothing_left(within_s=0)


def test_nothing_outlives_a_killed_launcher(launched: Callable[[str], Launched]) -> None:
    it = launched(STUBBORN)

    it.launcher.kill()

    it.await_nothing_left(within_s=5)


def test_a_dead_server_is_named_in_one_line_and_ends_the_launcher(launched: Callable[[str], Launched]) -> None:
    it = launched(IDLE)

    it.server.kill()

    _, errors = it.launcher.communicate(timeout=10)
    assert it.launcher.returncode == 1
    assert errors.splitlines()[-1] == "Error: tritonserver ended with status -9: it gave no reason"
    it.await_nothing_left(within_s=1)


def test_a_model_that_cannot_load_is_named_with_its_cause(tmp_path: Path) -> None:
    with launch("--config", str(write_config(tmp_path, BROKEN))) as launcher:
        _, errors = launcher.communicate(timeout=20)

    assert launcher.returncode == 1
    cause = "failed to load 'it' version 1: Internal: RuntimeError: the weights are gone"
    assert errors.splitlines()[-1] == f"Error: tritonserver ended with status 1: {cause}"


def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    slow = "import time; time.sleep(60)" + IDLE
    with launch("--config", str(write_config(tmp_path, slow, start_timeout_s=1, exit_timeout_s=1))) as launcher:
        _, errors = launcher.communicate(timeout=20)

    assert launcher.returncode == 1
    assert errors.splitlines()[-1] == "Error: tritonserver was not ready after start_timeout_s = 1"


def test_a_busy_port_is_named_in_one_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, IDLE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with launch("--config", str(config), "--grpc-port", str(port)) as launcher:
            _, errors = launcher.communicate(timeout=10)

    assert launcher.returncode == 1
    assert errors == f"Error: grpc_port {port} on 127.0.0.1: Address already in use; free it or set another\n"


def test_a_tritonserver_on_path_is_taken_with_its_own_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's container, as far as the launcher knows it: server and backends in one folder, libraries in place."""
    wheel = find_installation()
    root = tmp_path / "tritonserver"
    (root / "bin").mkdir(parents=True)
    shutil.copy(wheel.server, root / "bin")
    wheel.prepare_backends(root / "backends")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(map(str, wheel.libraries)))
    monkeypatch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")

    with serving(load_config(write_config(tmp_path, IDLE, exit_timeout_s=1))) as server:
        command = psutil.Process(server.pid).cmdline()

    assert command[0] == str(root / "bin" / "tritonserver")
    assert f"--backend-directory={root / 'backends'}" in command


def test_without_any_tritonserver_the_error_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.installation.WHEEL", "no-such-wheel")

    with pytest.raises(InstallationError, match="no tritonserver on PATH and no no-such-wheel here"):
        find_installation()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("chat: {artifact: a, slotz: 3}", r"unknown field `slotz` - at `\$.chat`"),
        ("chat: {artifact: a, slots: 0}", r"Expected `int` >= 1 - at `\$.chat.slots`"),
        ("chat: {artifact: a, provider: tpu}", "Invalid enum value 'tpu'"),
        ("host: 127.0.0.1", "no model to serve; set chat, embed or repositories"),
        ("chat: {artifact: käse}", "opens ASCII paths only"),
        ("{", "triton.yaml"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "triton.yaml"
    path.write_text(text)

    with launch("--config", str(path), *[f"--{kind}-port=0" for kind in ("http", "grpc", "metrics")]) as launcher:
        _, errors = launcher.communicate(timeout=10)

    assert launcher.returncode == 1
    assert errors.startswith("Error: ")
    assert re.search(error, errors)
