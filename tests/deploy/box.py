"""A box without a network: a namespace with loopback alone, an engine of its own in it, and no Python on its path."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.site.bundle import INSTALLER

NAMESPACE = "hybrid-box"
# not `ip netns exec`: its own /sys would hide the control groups
_ENTER = ("/usr/bin/nsenter", f"--net=/run/netns/{NAMESPACE}")
_ENGINE_S = 60.0
_LIMIT_S = 600.0
# what the installer may use, and what the engine's commands call by name
_TOOLS = (
    "sh tar sha256sum openssl head wc sed awk df mktemp cat tr cut grep cmp cp mv rm mkdir chmod dirname ls sleep"
    " docker docker-compose"
)


class Box:
    """Runs commands inside; `folder` is its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": str(folder / "bin"), "DOCKER_HOST": f"unix://{folder}/sock", "HOME": str(folder)}

    def run(self, *command: str, check: bool = True, limit_s: float = _LIMIT_S) -> subprocess.CompletedProcess[str]:
        """One command, on the box's path."""
        done = subprocess.run(
            [*_ENTER, *command],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def install(self, bundle: Path, key: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the installer; its status may be anything."""
        return self.run("sh", str(INSTALLER), str(bundle), "--key", str(key), *more, check=False)

    def install_until(self, said: str, after_s: float, bundle: Path, key: Path, *more: str) -> None:
        """Run the installer and kill it, and all that it started, some time after it said something."""
        command = ["sh", str(INSTALLER), str(bundle), "--key", str(key), *more]
        with subprocess.Popen(
            [*_ENTER, *command],
            env=self.environment,
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as running:
            assert running.stderr is not None
            assert any(said in line for line in running.stderr), f"it never said {said}"
            time.sleep(after_s)
            assert running.poll() is None, "it was done before it could be killed"
            os.killpg(running.pid, signal.SIGKILL)


@contextmanager
def offline_box(folder: Path) -> Iterator[Box]:
    """A box around the body; its engine has no image."""
    (folder / "bin").mkdir(parents=True)
    for tool in _TOOLS.split():
        found = shutil.which(tool)
        if found:
            (folder / "bin" / tool).symlink_to(found)
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("-n", NAMESPACE, "link", "set", "lo", "up")
        with _engine(folder):
            box = Box(folder)
            try:
                yield box
            finally:
                containers = box.run("docker", "ps", "-aq").stdout.split()
                box.run("docker", "rm", "-f", "unused", *containers, check=False)
    finally:
        _ip("netns", "del", NAMESPACE)
        shutil.rmtree(folder)  # gigabytes that pytest would keep


@contextmanager
def _engine(folder: Path) -> Iterator[None]:
    dockerd = shutil.which("dockerd")
    assert dockerd, "dockerd is not installed"
    places = {"data-root": "data", "exec-root": "run", "pidfile": "pid"}
    options = [word for option, place in places.items() for word in (f"--{option}", str(folder / place))]
    command = [*_ENTER, dockerd, *options, "-H", f"unix://{folder}/sock"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as engine:
        try:
            _wait_for(folder / "sock", engine)
            yield
        finally:
            engine.send_signal(signal.SIGTERM)
            engine.wait(_ENGINE_S)


def _wait_for(path: Path, engine: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    ask = ["docker", "-H", f"unix://{path}", "info"]
    while subprocess.run(ask, capture_output=True, check=False, timeout=_ENGINE_S).returncode:
        assert engine.poll() is None, path.with_name("log").read_text()[-2000:]
        assert time.monotonic() - began < _ENGINE_S, "the box's engine does not answer"
        time.sleep(0.25)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10, env=dict(os.environ))
