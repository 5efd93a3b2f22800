"""
Start, watch and stop a tritonserver.

Nothing outlives the launcher, whatever ends it. tritonserver and its Python stubs form one process group, and two small
shells stand by:

* the sentinel reads from a pipe that the launcher holds open. When the launcher closes it, or dies (even by SIGKILL),
  the sentinel kills the group and removes what it leaves: the run directory and the stubs' shared memory.
* the gate becomes tritonserver only when the launcher says so, after the sentinel has learnt the group.

(PR_SET_PDEATHSIG would follow the thread that started tritonserver instead of the process, would not reach the stubs,
and cannot remove files.)
"""

import contextlib
import http.client
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cloud.config import TritonConfig
from cloud.installation import Installation, find_installation, has_nvidia_device
from cloud.repository import write_repository

_GATE = 'read -r _ && exec "$@" </dev/null'
_SENTINEL = """
read -r group; read -r _
[ -z "$group" ] || kill -s KILL -- "-$group" 2>/dev/null
rm -rf -- "$1" "/dev/shm/$2"*
"""

_EXIT_GRACE_S = 3.0
_PROBE_EVERY_S = 0.1
_CAUSE = re.compile(r'^(?:E\d{4} .*?\] "(?=failed to )|error: )(?P<text>.+?)(?:\\n|"?$)')

# Interfaces through which a client could read shared memory, write files or change models. Triton has no switch for
# them, so they ask for a header whose value nobody knows.
_CLOSED = "shared-memory,model-repository,trace,logging"


class LaunchError(Exception):
    """tritonserver did not start, or died; one line that names the cause."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """`host:port` of each interface."""

    http: str
    grpc: str
    metrics: str


@contextmanager
def serving(
    config: TritonConfig, *, installation: Installation | None = None, log: TextIO = sys.stderr
) -> Iterator["TritonServer"]:
    """
    Run tritonserver around the body: ready when the body starts, gone when it ends.

    `log` gets the server's output. Raises `LaunchError`, `InstallationError` or `ConfigError`.
    """
    with ExitStack() as stack:
        server = TritonServer(config, installation or find_installation(), log)
        stack.callback(server.stop)
        server.start()
        server.wait_ready()
        yield server


class TritonServer:
    def __init__(self, config: TritonConfig, installation: Installation, log: TextIO) -> None:
        self._config = config
        self._installation = installation
        self._log = log
        self._cause: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._output = threading.Thread(target=self._forward_output, name="triton-output", daemon=True)
        self._cleanup = ExitStack()
        self.addresses = Addresses("", "", "")

    @property
    def pid(self) -> int:
        """The process, and the process group, of tritonserver."""
        return self._running().pid

    def start(self) -> None:
        """Start the process. Raises `LaunchError` when a port is taken."""
        ports = _reserve_ports(self._config)
        host = _reachable(self._config.host)
        self.addresses = Addresses(*(f"{host}:{port}" for port in ports))
        folder = Path(tempfile.mkdtemp(prefix="hybrid-triton-"))
        region = f"{folder.name}-"
        self._cleanup.callback(self._reap)
        sentinel = self._cleanup.enter_context(_shell(_SENTINEL, str(folder), region))
        command = self._command(folder, region, ports)
        self._process = _shell(_GATE, *command, env=self._installation.environment(), stdout=subprocess.PIPE)
        self._output.start()
        _tell(sentinel, str(self._process.pid))
        _tell(self._process, "go")

    def _command(self, folder: Path, region: str, ports: tuple[int, int, int]) -> list[str]:
        config = self._config
        http, grpc, metrics = ports
        own = [str(write_repository(config, folder / "repository"))] if config.chat or config.embed else []
        repositories = [*own, *config.repositories]
        key = secrets.token_hex(16)
        return [
            str(self._installation.server),
            *(f"--model-repository={repository}" for repository in repositories),
            # Our models need no completion, which would start each stub twice; the stock vLLM backend's does.
            *([] if config.repositories else ["--disable-auto-complete-config"]),
            f"--backend-directory={self._installation.prepare_backends(folder / 'backends')}",
            f"--backend-config=python,shm-region-prefix-name={region}",
            f"--http-address={config.host}",
            f"--grpc-address={config.host}",
            f"--metrics-address={config.host}",
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            f"--http-restricted-api={_CLOSED}:key={key}",
            f"--grpc-restricted-protocol={_CLOSED}:key={key}",
            f"--exit-timeout-secs={round(config.exit_timeout_s)}",
            f"--log-info={str(config.log_info).lower()}",
            # Asking for them where no NVIDIA driver is costs a second.
            f"--allow-gpu-metrics={str(has_nvidia_device()).lower()}",
            # Models keep their tensors to themselves; without a GPU these only cause alarming messages.
            "--pinned-memory-pool-byte-size=0",
            "--enable-peer-access=false",
            *_tls_options(config),
        ]

    def _forward_output(self) -> None:
        for line in self._running().stdout or ():
            if self._cause is None and (found := _CAUSE.match(line)):
                self._cause = found["text"]
            # Who is killed may leave a line unfinished.
            self._log.write(line if line.endswith("\n") else line + "\n")
            self._log.flush()

    def wait_ready(self) -> None:
        """Return once every model is ready. Raises `LaunchError` when the server dies or takes too long."""
        process = self._running()
        limit = time.monotonic() + self._config.start_timeout_s
        while not _ready(self.addresses.http):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PROBE_EVERY_S)
                raise self._death(process)
            if time.monotonic() > limit:
                raise LaunchError(
                    f"tritonserver was not ready after start_timeout_s = {self._config.start_timeout_s:g}"
                )

    def wait(self) -> None:
        """Wait until tritonserver ends by itself, which is always a `LaunchError`."""
        process = self._running()
        process.wait()
        raise self._death(process)

    def stop(self) -> None:
        """End the server and all it started. It gets `exit_timeout_s` to finish its requests. May be called twice."""
        with self._cleanup:
            if self._process is not None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self._config.exit_timeout_s + _EXIT_GRACE_S)

    def _reap(self) -> None:
        if self._process is not None:
            self._output.join()
            with self._process:
                pass

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("start() comes first")
        return self._process

    def _death(self, process: subprocess.Popen[str]) -> LaunchError:
        self._output.join(_EXIT_GRACE_S)
        return LaunchError(f"tritonserver ended with status {process.returncode}: {self._cause or 'it gave no reason'}")


def _reserve_ports(config: TritonConfig) -> tuple[int, int, int]:
    """Check the ports and choose those that are 0. All are held until the last is known, so that they differ."""
    ports = []
    with ExitStack() as held:
        for key in ("http_port", "grpc_port", "metrics_port"):
            port: int = getattr(config, key)
            try:
                listener = held.enter_context(socket.create_server((config.host, port)))
            except OSError as exc:
                reason = os.strerror(exc.errno or 0)
                raise LaunchError(f"{key} {port} on {config.host}: {reason}; free it or set another") from exc
            ports.append(listener.getsockname()[1])
    http, grpc, metrics = ports
    return http, grpc, metrics


def _tls_options(config: TritonConfig) -> list[str]:
    if config.tls is None:
        return []
    return [
        "--grpc-use-ssl-mutual=true",
        f"--grpc-root-cert={config.tls.ca_file}",
        f"--grpc-server-cert={config.tls.certificate_file}",
        f"--grpc-server-key={config.tls.key_file}",
    ]


def _reachable(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


def _shell(
    script: str, *arguments: str, env: dict[str, str] | None = None, stdout: int | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - both scripts are ours
        ["/bin/sh", "-c", script, "hybrid-triton", *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stdout and subprocess.STDOUT,
        env=env,
        start_new_session=True,
        text=True,
        errors="replace",
    )


def _tell(shell: subprocess.Popen[str], line: str) -> None:
    # A shell that died already is found out by whoever waits for it.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=shell.stdin, flush=True)


def _ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=1.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
