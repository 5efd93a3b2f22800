"""A real Redis of one's own, which can be stopped, hung and started again on its port."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from loadtests.ports import free_port

_START_S = 10.0


class NoServerError(Exception):
    """Neither program is installed."""


class RedisServer:
    """`redis-server` without persistence; Valkey's takes the same options."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the configuration."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Run until it answers.

        Raises:
            NoServerError: there is none.
        """
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            raise NoServerError("neither valkey-server nor redis-server is installed")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)
        raise RuntimeError("the server did not start")

    def stop(self) -> None:
        """SIGKILL; everything in it is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It keeps its connections and takes new ones, but answers nothing."""
        self._signal(signal.SIGSTOP)

    def empty(self) -> None:
        """FLUSHALL."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            if connection.recv(64) != b"+OK\r\n":
                raise RuntimeError("the server was not flushed")

    def go_on(self) -> None:
        """As before."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A started one, stopped afterwards."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
