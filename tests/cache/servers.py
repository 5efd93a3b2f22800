"""Redis and small disks for tests, which are skipped where there are none."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests import redis_server
from loadtests.redis_server import NoServerError, RedisServer
from loadtests.small_disk import MountError, SmallDisk, mounted


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A started one, stopped afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(redis_server.running_redis(folder))
        except NoServerError as exc:
            pytest.skip(str(exc))
        yield server


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A mounted one."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(SmallDisk(folder, megabytes)))
        except MountError as exc:
            pytest.skip(str(exc))
        yield disk
