"""
What was paid and what is set aside, hour by hour and day by day: whole picos, never above a limit.

Windows are fixed by the clock: UTC hours and days. In each, what may be taken grows evenly from a small start to the
limit. A call belongs to the windows in which it was reserved, however late it is settled. A window keeps its account
when the clock goes back into it; windows older than those still known are closed, so that no clock spends one twice.

A file remembers for each window how much *may* have been taken, always at least as much as was: it is written ahead, in
the background, some hundred times a window. After a crash all of that counts as paid, reserved or not; after `close` it
is exact.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from router.policy.money import amount as as_amount

Clock = Callable[[], float]
"""Seconds since 1970, UTC; may go back."""
_KEPT = 4
_LEAD_PART = 50
"""A limit's part, as its divisor, by which the file runs ahead of what is taken, and so what a crash can cost."""
_LEAD_CALLS = 2
"""It runs ahead by at least so many calls like the one at hand."""
_SHORTEST_REST = 0.01
"""Of a window: money left for less time than that is spread over it all the same, or the end would take it all."""
_logger = logging.getLogger(__name__)


class Period(StrEnum):
    """How long a window lasts."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """Of one window."""
        return 3600 if self is Period.HOUR else 86_400

    @property
    def us(self) -> int:
        """Microseconds of one window."""
        return self.seconds * 10**6


@dataclass(frozen=True, slots=True)
class Allowance:
    """Picos that each window of a period may take: `burst` at once, all of `limit` by its end."""

    period: Period
    limit: int
    burst: int

    def line(self, elapsed_us: int) -> int:
        """What may be taken by then."""
        return min(self.limit, self.burst + self.limit * elapsed_us // self.period.us)


@dataclass(frozen=True, slots=True)
class Balance:
    """A window's account, in the currency; `refused` counts calls that it could not afford."""

    period: Period
    limit: Decimal
    paid: Decimal
    reserved: Decimal
    refused: int


@dataclass(slots=True)
class Window:
    """One hour or day, in picos.

    `expected` is what the reserved calls will likely cost, `vouched` what the file says may be taken.
    """

    paid: int = 0
    reserved: int = 0
    expected: int = 0
    vouched: int = 0
    refused: int = 0

    @property
    def taken(self) -> int:
        """Paid, or set aside to be."""
        return self.paid + self.reserved

    @property
    def spent(self) -> int:
        """Paid, or likely to be."""
        return self.paid + self.expected


@dataclass(slots=True)
class Hold:
    """Picos set aside in the windows of one moment."""

    amount: int
    expected: int
    windows: Sequence[Window]
    open: bool = True


Record = Mapping[Period, Mapping[int, int]]
"""Picos that may have been taken, by period and window (counted from 1970)."""


class Memory(Protocol):
    """Where a ledger's record outlives the process."""

    def load(self) -> Record:
        """What was saved last; empty at the first start."""
        ...

    def save(self, record: Record) -> Future[None]:
        """Begin to replace it, wholly or not at all; the result is an `OSError` when the old one stands."""
        ...

    def close(self) -> None:
        """Nothing more is saved."""
        ...


@dataclass(slots=True)
class Saving:
    """A record on its way to the memory."""

    record: Record
    future: Future[None]


@dataclass(slots=True)
class Account:
    """One allowance's newest windows; older ones are forgotten, and closed."""

    allowance: Allowance
    windows: dict[int, Window] = field(default_factory=dict)

    def window(self, now_us: int) -> Window | None:
        """The window of that moment, None when it is closed."""
        index = now_us // self.allowance.period.us
        if index not in self.windows:
            self.windows[index] = Window()
            if len(self.windows) > _KEPT:  # one that was forgotten before is the oldest again
                del self.windows[min(self.windows)]
        return self.windows.get(index)

    def lead(self, amount: int) -> int:
        """By how much the record runs ahead when calls take so much."""
        return max(self.allowance.limit // _LEAD_PART, _LEAD_CALLS * amount)

    def affords(self, window: Window, now_us: int, amount: int, expected: int) -> bool:
        """Whether the limit bears the whole amount, and now's line what is expected of it."""
        line = self.allowance.line(now_us % self.allowance.period.us)
        return window.taken + amount <= self.allowance.limit and window.spent + expected <= line

    def rate(self, window: Window, now_us: int) -> float:
        """Picos a second that last to the window's end."""
        period_us = self.allowance.period.us
        early_us = period_us * self.allowance.burst // self.allowance.limit // 2
        rest_us = max(period_us - now_us % period_us - early_us, int(_SHORTEST_REST * period_us))
        return max(self.allowance.limit - window.spent, 0) / rest_us * 1e6


class Ledger:
    """Every allowance's account. For one thread."""

    def __init__(self, allowances: Sequence[Allowance], clock: Clock, memory: Memory | None = None) -> None:
        self._clock = clock
        self._memory = memory
        self._saving: Saving | None = None
        self._broken = False
        record = memory.load() if memory else {}
        self._accounts = [_reopen(allowance, record.get(allowance.period, {})) for allowance in allowances]

    def hold(self, amount: int, expected: int) -> Hold | None:
        """Set aside `amount`; None where a limit does not bear it, or a line not what is expected of it."""
        now_us = self._now_us()
        windows = []
        for account in self._accounts:
            window = account.window(now_us)
            if window is None:
                return None
            if not account.affords(window, now_us, amount, expected):
                window.refused += 1
                return None
            windows.append(window)
        if not self._vouch(windows, amount):
            return None
        for window in windows:
            window.reserved += amount
            window.expected += expected
        return Hold(amount, expected, windows)

    def settle(self, hold: Hold, cost: int) -> None:
        """Turn a hold into what the call cost; a cost above the hold is paid too, and leaves that much less for others.

        The second time does nothing.
        """
        if not hold.open:
            return
        hold.open = False
        for window in hold.windows:
            window.reserved -= hold.amount
            window.expected -= hold.expected
            window.paid += cost

    def rate(self) -> float:
        """Picos a second that last to the end of every current window."""
        now_us = self._now_us()
        windows = [(account, account.window(now_us)) for account in self._accounts]
        return min(account.rate(window, now_us) if window else 0.0 for account, window in windows)

    def balances(self) -> tuple[Balance, ...]:
        """The current windows; a closed one counts as spent."""
        now_us = self._now_us()
        found = []
        for account in self._accounts:
            limit = account.allowance.limit
            window = account.window(now_us) or Window(paid=limit)
            found.append(
                Balance(
                    account.allowance.period,
                    as_amount(limit),
                    as_amount(window.paid),
                    as_amount(window.reserved),
                    window.refused,
                )
            )
        return tuple(found)

    def close(self) -> None:
        """Save what was taken, exactly; what is still reserved counts as paid."""
        if self._memory is not None:
            self._collect(wait=True)
            self._save(self._memory, lambda account, window: window.taken)
            self._collect(wait=True)
            self._memory.close()

    def _vouch(self, windows: Sequence[Window], amount: int) -> bool:
        """Whether the record allows for `amount` more; waits only where it was not written far enough ahead."""
        if self._memory is None:
            return True

        def ahead(account: Account, window: Window) -> int:
            if not any(window is one for one in windows):
                return max(window.vouched, window.taken)
            return min(window.taken + amount + account.lead(amount), account.allowance.limit)

        def vouched() -> bool:
            return all(window.taken + amount <= window.vouched for window in windows)

        self._collect(wait=False)
        if not vouched():
            self._collect(wait=True)
        if not vouched():
            self._save(self._memory, ahead)
            self._collect(wait=True)
        elif self._saving is None and self._is_short(windows, amount):
            self._save(self._memory, ahead)
        return vouched()

    def _is_short(self, windows: Sequence[Window], amount: int) -> bool:
        """Whether half the lead is used up, and more can be vouched for."""
        return any(
            window.vouched < min(window.taken + amount + account.lead(amount) // 2, account.allowance.limit)
            for account, window in zip(self._accounts, windows, strict=True)
        )

    def _save(self, memory: Memory, vouch: Callable[[Account, Window], int]) -> None:
        record: dict[Period, dict[int, int]] = {account.allowance.period: {} for account in self._accounts}
        for account in self._accounts:
            for index, window in account.windows.items():
                record[account.allowance.period][index] = picos = vouch(account, window)
                window.vouched = min(window.vouched, picos)  # until it is known which of the two records stands
        self._saving = Saving(record, memory.save(record))

    def _collect(self, *, wait: bool) -> None:
        """Take note of a record that is saved."""
        saving = self._saving
        if saving is None or not (wait or saving.future.done()):
            return
        self._saving = None
        try:
            saving.future.result()
        except OSError as exc:
            if not self._broken:
                _logger.error("The budget's state cannot be saved, so little more is spent: %s", exc)  # noqa: TRY400
            self._broken = True
            return
        self._broken = False
        for account in self._accounts:
            for index, picos in saving.record[account.allowance.period].items():
                if window := account.windows.get(index):
                    window.vouched = picos

    def _now_us(self) -> int:
        return int(self._clock() * 10**6)


def _reopen(allowance: Allowance, taken: Mapping[int, int]) -> Account:
    """The account as it was left: what may have been taken is paid."""
    return Account(allowance, {index: Window(paid=picos, vouched=picos) for index, picos in taken.items()})
