"""What one of several processes may use: its part of every bound, so that all together keep to the configuration."""

from decimal import Decimal
from math import nextafter
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from router.config import AnyPolicy, AnyTarget, BudgetPolicy, CloudSharePolicy, Config, OpenAITarget
from router.config.cache import DiskTier, Tiers
from router.config.lanes import Lane

_LEAST_WINDOW: Final = 20
_LEAST_WAITING_BYTES: Final = 65_536


def part_of(config: Config, index: int) -> Config:
    """The configuration of the process `index` of `config.processes`.

    Remainders go to the first processes, one each. A configuration that passed its checks leaves no process without a
    slot. Rates, shares and times are the same for all; quotas are counted together and so not divided.
    """
    if config.processes == 1:
        return config
    targets = {name: _divide_target(target, index, config.processes) for name, target in config.targets.items()}
    return replace(
        config,
        targets=targets,
        policy=_divide_policy(config.policy, index, config.processes),
        cache=replace(config.cache, tiers=_divide_tiers(config.cache.tiers, index, config.processes)),
    )


def split(whole: int, index: int, count: int) -> int:
    """A part; all parts together are the whole."""
    return whole // count + (index < whole % count)


def disk_folder(disk: DiskTier, index: int) -> Path:
    """Where a process keeps its database, which has one owner; the first goes on with that of a router alone."""
    return disk.folder / f"process-{index}" if index else disk.folder


def budget_file(file: Path, index: int, count: int) -> Path:
    """Where a process remembers what it has spent; a router alone in the file itself."""
    return file.with_name(f"{file.name}.{index}-of-{count}") if count > 1 else file


def _divide_target(target: AnyTarget, index: int, count: int) -> AnyTarget:
    lane = _divide_lane(target.lane, index, count)
    embedding_lane = _divide_lane(target.embedding_lane, index, count)
    if isinstance(target, OpenAITarget):
        connections = max(split(target.connections, index, count), 1)
        return replace(target, lane=lane, embedding_lane=embedding_lane, connections=connections)
    return replace(target, lane=lane, embedding_lane=embedding_lane)


def _divide_lane(lane: Lane, index: int, count: int) -> Lane:
    adaptive = lane.adaptive
    if adaptive is not None:
        least, most = (split(slots, index, count) for slots in (adaptive.least, adaptive.most))
        adaptive = replace(adaptive, least=max(least, 1), most=most)
    backlog = split(lane.backlog, index, count)
    return replace(lane, slots=max(split(lane.slots, index, count), 1), adaptive=adaptive, backlog=backlog)


def _divide_policy(policy: AnyPolicy, index: int, count: int) -> AnyPolicy:
    """Each process keeps the share, or its part of the limits, over its own requests, and so all do."""
    match policy:
        case CloudSharePolicy(window_requests=window):
            return replace(policy, window_requests=max(window // count, _LEAST_WINDOW))
        case BudgetPolicy(per_hour=hour, per_day=day, state_file=file):
            file = budget_file(file, index, count) if file else None
            return replace(
                policy, per_hour=_divide_amount(hour, count), per_day=_divide_amount(day, count), state_file=file
            )
        case _:
            return policy


def _divide_amount(amount: float | None, count: int) -> float | None:
    """Of the amount as it is written; one step lower than the nearest float, which may be written as more."""
    return None if amount is None else nextafter(float(Decimal(str(amount)) / count), 0.0)


def _divide_tiers(tiers: Tiers, index: int, count: int) -> Tiers:
    memory = replace(tiers.memory, most_bytes=tiers.memory.most_bytes // count)
    waiting = max(tiers.most_waiting_bytes // count, _LEAST_WAITING_BYTES)
    disk = tiers.disk and _divide_disk(tiers.disk, index, count)
    return replace(tiers, memory=memory, disk=disk, most_waiting_bytes=waiting)


def _divide_disk(disk: DiskTier, index: int, count: int) -> DiskTier:
    return DiskTier(folder=disk_folder(disk, index), most_bytes=disk.most_bytes // count)
