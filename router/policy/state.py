"""The file in which a budget's ledger outlives the process."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from edge.engine.settings import ConfigError
from router.policy.ledger import Period, Record
from router.policy.money import PICOS, amount


class Amounts(Struct, frozen=True, forbid_unknown_fields=True):
    """The file: what may have been spent, in the currency, by the Unix time at which the hour or day began."""

    format: Literal["hybrid-budget-1"]
    hour: dict[int, Decimal] = {}
    day: dict[int, Decimal] = {}


class StateFile:
    """One small JSON file, replaced in one step by a thread of its own; for one router only.

    It is not forced to the disk: a crash of the process loses nothing, a power cut at most the last writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, "budget-state")
        self._encode = msgspec.json.Encoder().encode
        self._decoder = msgspec.json.Decoder(Amounts)

    def load(self) -> Record:
        """What was saved last; empty when there is no file.

        Raises:
            ConfigError: it cannot be read or is not such a file.
        """
        fix = "restore it, or delete it to start with nothing spent"
        try:
            amounts = self._decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise ConfigError(f"{self._path}: this budget state cannot be read ({exc.strerror}); {fix}") from exc
        except msgspec.MsgspecError as exc:
            raise ConfigError(f"{self._path}: not a budget state ({exc}); {fix}") from exc
        if any(not spent.is_finite() or spent < 0 for spent in (*amounts.hour.values(), *amounts.day.values())):
            raise ConfigError(f"{self._path}: not a budget state (an amount below 0 or not finite); {fix}")
        return {Period.HOUR: _windows(Period.HOUR, amounts.hour), Period.DAY: _windows(Period.DAY, amounts.day)}

    def save(self, record: Record) -> Future[None]:
        """Begin to replace the file; the result is an `OSError` when the old one stands."""
        by_start = {
            period: {index * period.seconds: amount(picos) for index, picos in record.get(period, {}).items()}
            for period in Period
        }
        amounts = Amounts("hybrid-budget-1", by_start[Period.HOUR], by_start[Period.DAY])
        return self._writer.submit(self._replace, self._encode(amounts) + b"\n")

    def close(self) -> None:
        """End the thread."""
        self._writer.shutdown()

    def _replace(self, content: bytes) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(self._path)


def _windows(period: Period, amounts: Mapping[int, Decimal]) -> dict[int, int]:
    return {start // period.seconds: int(spent * PICOS) for start, spent in amounts.items()}
