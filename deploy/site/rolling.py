"""
A site's router replicas replaced one at a time, behind a balancer that looks at `/health/ready`.

A replica that is to go says so first (`limits.lead_s`), ends what it works on, and only then stops. The next one goes
when the new one is ready, reaches what its predecessor reached, and the balancer had time to see it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.site.errors import SiteError
from deploy.site.files import write
from deploy.site.services import Services
from deploy.site.waiting import Limits, read_targets, wait_ready, wait_targets

_FEWEST: Final = 2
_GOOD, _REFUSED = ".good", ".refused"


@dataclass(frozen=True, slots=True)
class GoodFiles:
    """What a site's routers last ran well with, kept beside it: version of the images, configurations, compose files.

    Not the edges' files: an upgrade changes those.
    """

    folder: Path

    def keep(self) -> None:
        """What is there now is good.

        Raises:
            SiteError: a copy cannot be written.
        """
        for file in self._files(self.folder):
            write(self.folder / _GOOD / file.name, file.read_bytes())

    def restore(self) -> list[str]:
        """Put back what has changed since; the refused files go to `.refused`. Returns their names.

        Raises:
            SiteError: a file cannot be written.
        """
        changed = []
        for good in self._files(self.folder / _GOOD):
            file = self.folder / good.name
            content = file.read_bytes() if file.exists() else b""
            if content != good.read_bytes():
                write(self.folder / _REFUSED / good.name, content)
                write(file, good.read_bytes())
                changed.append(good.name)
        return changed

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(
            file for file in folder.glob("*") if file.is_file() and not file.name.startswith(("edge", ".lock"))
        )


@dataclass(frozen=True)
class Roll:
    """Replicas to replace; `say` gets the progress, line by line."""

    services: Services
    replicas: Sequence[str]
    files: GoodFiles
    limits: Limits = field(default_factory=Limits)
    say: Callable[[str], None] = print

    def run(self) -> None:
        """Replace all, or none: one that is not ready in time brings the last good files back to those replaced.

        Raises:
            SiteError: there are too few replicas, or a new one is not ready; what was done about it.
        """
        if len(self.replicas) < _FEWEST:
            raise SiteError("a roll needs two router replicas behind a balancer; with one, requests would be refused")
        done: list[str] = []
        for replica in self.replicas:
            done.append(replica)
            try:
                self._replace(replica)
            except SiteError as exc:
                raise SiteError(f"{exc}; {self._go_back(done)}") from None
        self.files.keep()

    def _replace(self, replica: str) -> None:
        began = time.monotonic()
        reached = {name for name, up in read_targets(self.services, replica).items() if up}
        self.services.replace(replica)
        wait_ready(self.services, replica, self.limits.ready_s)
        wait_targets(self.services, replica, reached, self.limits.notice_s)
        time.sleep(self.limits.settle_s)  # until the balancer has seen it
        self.say(f"{replica} is new and ready after {time.monotonic() - began:.1f} s")

    def _go_back(self, done: list[str]) -> str:
        changed = self.files.restore()
        if not changed:
            return f"no file has changed since it last ran well, so {done[-1]} stays down; the others serve"
        for replica in reversed(done):
            self.services.replace(replica)
            wait_ready(self.services, replica, self.limits.ready_s)
            time.sleep(self.limits.settle_s)
            self.say(f"{replica} is back as it was")
        return f"{', '.join(changed)} as before, the refused in {self.files.folder / _REFUSED}; all replicas serve"
