"""
What a budget has spent, for as many processes as there are now. Each has a part of the limits and a file of its own;
when their number changes, what all have spent together is divided anew, rounded up.
"""

from pathlib import Path
from re import escape, fullmatch

from edge.engine.settings import ConfigError
from router.config import BudgetPolicy, Config
from router.policy import Period
from router.policy.ledger import Record
from router.policy.state import StateFile
from router.processes.division import budget_file


def divide_spent(config: Config) -> None:
    """Before any process starts. Cut off in the middle, it counts some spending twice, and none not at all.

    Raises:
        ConfigError: a file cannot be read, or not be written.
    """
    policy = config.policy
    if not isinstance(policy, BudgetPolicy) or policy.state_file is None:
        return
    wanted = [budget_file(policy.state_file, index, config.processes) for index in range(config.processes)]
    found = _find(policy.state_file)
    if set(found) <= set(wanted):
        return
    part = _divide([_load(file) for file in found], config.processes)
    try:
        for file in wanted:
            _save(file, part)
        for file in set(found) - set(wanted):
            file.unlink()
    except OSError as exc:
        raise ConfigError(f"policy.state_file: cannot write {exc.filename} ({exc.strerror})") from exc


def _find(file: Path) -> list[Path]:
    """All files of this budget, for however many processes they were written."""
    pattern = rf"{escape(file.name)}(\.\d+-of-\d+)?"
    return sorted(one for one in file.parent.iterdir() if fullmatch(pattern, one.name))


def _divide(records: list[Record], count: int) -> Record:
    """Each process's part of what all have spent."""
    total: dict[Period, dict[int, int]] = {period: {} for period in Period}
    for record in records:
        for period, windows in record.items():
            for window, picos in windows.items():
                total[period][window] = total[period].get(window, 0) + picos
    return {
        period: {window: -(-picos // count) for window, picos in windows.items()} for period, windows in total.items()
    }


def _load(path: Path) -> Record:
    file = StateFile(path)
    try:
        return file.load()
    finally:
        file.close()


def _save(path: Path, record: Record) -> None:
    file = StateFile(path)
    try:
        file.save(record).result()
    finally:
        file.close()
