"""A site's services as plain processes on loopback, for upgrades: see `deploy.site.services.Services`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.demo import ROOT
from deploy.site.errors import SiteError
from deploy.site.services import Answer
from loadtests.ports import free_port

_STOP_S = 40.0


class Processes:
    """One process a service: `router-…` are routers, the others edges, each with `<folder>/<name>.yaml`."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder = folder
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._client = httpx.Client(timeout=20, trust_env=False)

    def add(self, name: str, content: dict[str, Any]) -> int:
        """Write a service's configuration, with a free port for it to listen on."""
        port = free_port()
        (self._folder / f"{name}.yaml").write_text(yaml.safe_dump({**content, "listen": {"port": port}}))
        return port

    def port(self, name: str) -> int:
        """Where it listens."""
        return int(yaml.safe_load((self._folder / f"{name}.yaml").read_text())["listen"]["port"])

    def replace(self, name: str) -> None:
        """See `Services`."""
        self.remove(name)
        part = ["router", "serve"] if name.startswith("router") else ["edge"]
        command = [sys.executable, "-m", *part, "--config", str(self._folder / f"{name}.yaml")]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)

    def remove(self, name: str) -> None:
        """See `Services`."""
        if (process := self._running.pop(name, None)) is not None:
            process.terminate()
            process.wait(_STOP_S)

    def kill(self, name: str) -> None:
        """As a crash would."""
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_S)

    def running(self) -> set[str]:
        """What runs now."""
        return {name for name, process in self._running.items() if process.poll() is None}

    def ask(self, name: str, path: str, body: bytes | None = None) -> Answer | None:
        """See `Services`."""
        url = f"http://127.0.0.1:{self.port(name)}{path}"
        try:
            answer = self._client.request("GET" if body is None else "POST", url, content=body)
        except httpx.HTTPError:
            return None
        return Answer(answer.status_code, answer.content)

    def has_died(self, name: str) -> bool:
        """See `Services`."""
        return name not in self.running()

    def last_words(self, name: str) -> str:
        """See `Services`."""
        try:
            return " ".join((self._logs / f"{name}.log").read_text(errors="replace").splitlines()[-1:])
        except OSError as exc:
            raise SiteError(f"{name}: said nothing") from exc

    def close(self) -> None:
        """Stop all."""
        for name in list(self._running):
            self.remove(name)
        self._client.close()
