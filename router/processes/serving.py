"""`hybrid serve`, in one process or several."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Final

from edge.engine.settings import ConfigError
from edge.serving import listen
from router.cache import CacheTierError
from router.cache.database import remove
from router.cache.disk import FILE
from router.config import Config
from router.processes.budget_files import divide_spent
from router.processes.division import disk_folder, part_of
from router.processes.quota_table import QuotaTable
from router.processes.siblings import Place
from router.processes.supervisor import Supervisor

_GRACE_S: Final = 10.0
"""What a process may take to stop besides its lead and its drain."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What one of several processes shares with the others; `quotas` is None where nobody has limits."""

    place: Place
    quotas: QuotaTable | None


ServeOne = Callable[[Config, socket, Membership], int]
"""Serve a part of the configuration from a listening socket; returns the exit status."""


def serve_together(config: Config, serve_one: ServeOne) -> int:
    """Run all processes until SIGTERM or SIGINT; returns the exit status."""
    listener = listen(config.listen.host, config.listen.port)
    if listener is None:
        return 1
    quotas = QuotaTable(config.quotas.most_tenants) if config.quotas.limited else None
    lifeline, held = os.pipe()
    with listener, TemporaryDirectory(prefix="hybrid-") as name:
        folder = Path(name)

        def work(index: int) -> int:
            os.close(held)  # else it would outlive the parent
            place = Place(index, config.processes, folder, lifeline)
            return serve_one(part_of(config, index), listener, Membership(place, quotas))

        stop_s = config.limits.lead_s + config.limits.drain_s + _GRACE_S
        first = Path(Place(0, config.processes, folder, lifeline).socket(0))
        return Supervisor(config.processes, work, first.exists, listener.close, stop_s=stop_s).run()


def prepare_files(config: Config) -> None:
    """Before any process starts: what each of them keeps on disk, for as many as there are now.

    Raises:
        ConfigError: that cannot be done.
    """
    _prepare_disk(config)
    divide_spent(config)


def _prepare_disk(config: Config) -> None:
    """A folder for each process's part of the cache's disk tier; those of processes that are no more go."""
    disk = config.cache.tiers.disk
    if disk is None:
        return
    wanted = [disk_folder(disk, index) for index in range(config.processes)]
    for stray in set(disk.folder.glob("process-*")) - set(wanted):
        with suppress(CacheTierError, OSError):  # not ours, or not empty: it stays
            remove(stray / FILE)
            stray.rmdir()
    try:
        for folder in wanted:
            folder.mkdir(exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"cache.tiers.disk.folder: cannot make {exc.filename} ({exc.strerror})") from exc
