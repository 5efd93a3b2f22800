import errno
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge.engine.settings import ConfigError
from loadtests.policy_traffic import Clock
from router.policy.ledger import Allowance, Hold, Ledger, Period, Record
from router.policy.state import StateFile

START = 1_700_000_000 // 86_400 * 86_400.0
HOUR = Allowance(Period.HOUR, limit=1000, burst=50)
DAY = Allowance(Period.DAY, limit=6000, burst=600)


def at(hours: float) -> Clock:
    """A clock that stands."""
    return Clock(START + hours * 3600)


def ledger(clock: Clock, *allowances: Allowance, file: Path | None = None) -> Ledger:
    """One over these allowances."""
    return Ledger(allowances or (HOUR,), clock, StateFile(file) if file else None)


@contextmanager
def crashing(clock: Clock, *allowances: Allowance, file: Path) -> Iterator[Ledger]:
    """A ledger that is never closed; what its thread was writing at the end is written."""
    memory = StateFile(file)
    yield Ledger(allowances, clock, memory)
    memory.close()


def held(found: Hold | None) -> Hold:
    """A hold that was granted."""
    assert found is not None
    return found


def most(tested: Ledger) -> int:
    """How many picos are granted one by one."""
    granted = 0
    while tested.hold(1, 1):
        granted += 1
    return granted


@pytest.mark.parametrize(("hours", "granted"), [(0, 50), (0.5, 550), (0.95, 1000), (0.999, 1000), (1, 50)])
def test_money_grows_evenly_from_the_burst_to_the_limit(hours: float, granted: int) -> None:
    assert most(ledger(at(hours))) == granted


def test_the_line_counts_what_is_expected_and_the_limit_all_that_is_reserved() -> None:
    tested = ledger(at(0))

    assert tested.hold(900, 45), "little is expected"
    assert not tested.hold(10, 10), "the line is at 50"
    assert not tested.hold(101, 1), "the limit is at 1000"
    assert tested.hold(100, 1)


def test_what_a_call_did_not_use_comes_back_once() -> None:
    tested = ledger(at(0.999))
    hold = held(tested.hold(1000, 1000))

    tested.settle(hold, 400)
    tested.settle(hold, 0)

    assert most(tested) == 600


def test_an_overrun_is_paid_and_leaves_less() -> None:
    tested = ledger(at(0.999))

    tested.settle(held(tested.hold(100, 100)), 300)

    assert most(tested) == 700


def test_a_call_that_outlives_its_window_is_paid_by_it_alone() -> None:
    clock = at(0.999)
    tested = ledger(clock, HOUR, DAY)
    hold = held(tested.hold(600, 600))
    clock.now = at(1.95).now

    tested.settle(hold, 500)

    assert [(int(b.paid * 10**12), int(b.reserved)) for b in tested.balances()] == [(0, 0), (500, 0)]
    assert most(tested) == 1087 - 500, "the day's line, less what the call cost"


def test_a_clock_that_goes_back_finds_its_window_as_it_left_it() -> None:
    clock = at(10.99)
    tested = ledger(clock)
    assert most(tested) == 1000

    clock.now = at(11.99).now
    assert most(tested) == 1000
    clock.now = at(10.99).now
    assert most(tested) == 0


def test_windows_too_old_to_be_known_are_closed() -> None:
    clock = at(100)
    tested = ledger(clock)
    for hour in range(100, 110):
        clock.now = at(hour).now
        assert tested.hold(1, 1)

    clock.now = at(101).now

    assert not tested.hold(1, 1)
    assert tested.rate() == 0
    assert tested.balances()[0].paid == tested.balances()[0].limit


def test_a_year_too_far_and_back_again_costs_nothing() -> None:
    clock = at(10.99)
    tested = ledger(clock)
    for hour in (24 * 365, 10.99, 11.99, 12.99, 13.99, 14.99):
        clock.now = at(hour).now

        assert tested.hold(10, 10)


def test_the_rate_lasts_to_the_end_of_the_window() -> None:
    clock = at(0)
    tested = ledger(clock)
    for second in range(3600):
        clock.now = START + second
        tested.hold(cost := math.floor(tested.rate() + second % 2), cost)

    assert 950 <= 1000 - most(tested) <= 1000


def test_both_limits_hold() -> None:
    clock = at(0)
    tested = ledger(clock, HOUR, DAY)
    by_hour: Counter[int] = Counter()
    for minute in range(0, 24 * 60, 5):
        clock.now = START + minute * 60 + 299
        by_hour[minute // 60] += most(tested)

    assert max(by_hour.values()) <= 1000
    assert by_hour.total() == 6000


def test_after_a_crash_what_was_reserved_or_might_have_been_is_paid(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    allowance = Allowance(Period.HOUR, 100_000, 100_000)
    with crashing(at(0), allowance, file=file) as before:
        before.settle(held(before.hold(300, 300)), 100)
        assert before.hold(200, 200)

    after = ledger(at(0), allowance, file=file)

    assert 100_000 - 300 - 2 * 2000 <= most(after) <= 100_000 - 300


def test_after_a_crash_earlier_windows_are_known_too(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    clock = at(0.999)
    with crashing(clock, HOUR, file=file) as before:
        assert before.hold(600, 600)
        clock.now = at(1.999).now
        assert before.hold(600, 600)
    clock.now = at(0.999).now

    assert not ledger(clock, file=file).hold(600, 600)


def test_after_a_stop_the_account_is_exact(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    before = ledger(at(0.999), HOUR, DAY, file=file)
    before.settle(held(before.hold(300, 300)), 100)
    assert before.hold(200, 200)
    before.close()

    after = ledger(at(0.999), HOUR, DAY, file=file)

    assert [b.paid * 10**12 for b in after.balances()] == [300, 300]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spent.json"]


def test_the_file_runs_ahead_and_is_written_some_hundred_times_a_window(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    tested = ledger(at(0.999), Allowance(Period.HOUR, 10**6, 10**6), file=file)
    versions = set()
    for call in range(1, 10_001):
        assert tested.hold(100, 100)
        versions.add(text := file.read_text())
        assert sum(map(Decimal, json.loads(text)["hour"].values())) * 10**12 >= 100 * call

    assert 40 <= len(versions) <= 110


class Unfinished(Future[None]):
    """A write that nobody has seen end."""

    def done(self) -> bool:
        """Not yet."""
        return False

    def result(self, timeout: float | None = None) -> None:
        """Who waits is told so."""
        raise OSError(errno.EIO, "stuck")


class StuckFile(StateFile):
    """A disk that stops to answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stuck = False
        self.records: list[Record] = []

    def save(self, record: Record) -> Future[None]:
        """Write the record, perhaps."""
        self.records.append(record)
        return Unfinished() if self.stuck else super().save(record)


def test_no_more_is_granted_than_the_file_says(tmp_path: Path) -> None:
    memory = StuckFile(tmp_path / "spent.json")
    tested = Ledger([HOUR], at(0.999), memory)
    assert tested.hold(1, 1)
    memory.stuck = True

    calls = 1 + most(tested)

    assert calls == sum(memory.load()[Period.HOUR].values())


def test_while_a_record_is_being_written_calls_fit_into_the_old_one_and_the_new_one(tmp_path: Path) -> None:
    clock = at(0.999)
    memory = StuckFile(tmp_path / "spent.json")
    tested = Ledger([Allowance(Period.HOUR, 5000, 5000), Allowance(Period.DAY, 1000, 1000)], clock, memory)
    large = held(tested.hold(400, 400))
    clock.now = at(1).now
    assert tested.hold(1, 1)
    tested.settle(large, 0)
    memory.stuck = True

    calls = 1 + most(tested)

    old, new = (sum(record[Period.DAY].values()) for record in memory.records[1:3])
    assert new < old, "else there is nothing to show"
    assert 50 < calls <= new


def test_nothing_is_spent_while_the_file_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    tested = ledger(at(0.999), file=folder / "spent.json")

    assert not tested.hold(1, 1)
    assert not tested.hold(1, 1)
    assert [record.getMessage()[:36] for record in caplog.records] == ["The budget's state cannot be saved, "]
    folder.mkdir()
    assert tested.hold(1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format":"hybrid-budget-2"}',
        '{"format":"hybrid-budget-1","hour":{"x":"1"}}',
        '{"format":"hybrid-budget-1","hour":{"3600":"NaN"}}',
        '{"format":"hybrid-budget-1","day":{"0":"-1"}}',
        '{"format":"hybrid-budget-1","minute":{}}',
    ],
)
def test_a_wrong_state_file_stops_the_start_with_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "spent.json"
    file.write_text(text)

    with pytest.raises(ConfigError, match=r"spent\.json: not a budget state .*delete it") as caught:
        ledger(at(0), file=file)

    assert "\n" not in str(caught.value)


def test_the_state_file_can_be_read_by_people(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    tested = Ledger([Allowance(Period.HOUR, 10**13, 10**13)], at(0), StateFile(file))
    assert tested.hold(25 * 10**10, 1)
    tested.close()

    assert json.loads(file.read_text()) == {
        "format": "hybrid-budget-1",
        "hour": {str(int(START)): "0.250000000000"},
        "day": {},
    }


class AnyUse(RuleBasedStateMachine):
    """Calls, clocks, crashes and stops in any order; costs are counted apart, by what the clock said.

    The lines are at the limits from the start, and the clock shows one of few hours: else few runs come near a limit.
    """

    hour = Allowance(Period.HOUR, limit=1000, burst=1000)
    day = Allowance(Period.DAY, limit=4000, burst=4000)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "spent.json"
        self.clock = at(0)
        self.pending: list[tuple[Hold, int, int]] = []
        self.paid: Counter[tuple[Period, int]] = Counter()
        self.reserved: Counter[tuple[Period, int]] = Counter()
        self._open()

    def teardown(self) -> None:
        self.memory.close()
        self.folder.cleanup()

    def _open(self) -> None:
        self.memory = StateFile(self.file)
        self.tested = Ledger((self.hour, self.day), self.clock, self.memory)

    def _count(self, counter: Counter[tuple[Period, int]], hour: int, amount: int) -> None:
        counter[Period.HOUR, hour] += amount
        counter[Period.DAY, hour // 24] += amount

    @rule(
        hour=st.integers(0, 6),
        day=st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5]),
        amount=st.one_of(st.integers(0, 1000), st.just(600)),
        part=st.floats(0, 1),
    )
    def reserve(self, hour: int, day: int, amount: int, part: float) -> None:
        self.clock.now = at(24 * day + hour).now
        if hold := self.tested.hold(amount, int(amount * part)):
            hour = int(self.clock.now) // 3600
            self.pending.append((hold, hour, amount))
            self._count(self.reserved, hour, amount)

    @precondition(lambda self: self.pending)
    @rule(pick=st.integers(0, 10**6), part=st.floats(0, 1), again=st.booleans())
    def settle(self, pick: int, part: float, again: bool) -> None:
        hold, hour, amount = self.pending.pop(pick % len(self.pending))
        cost = int(amount * part)
        self.tested.settle(hold, cost)
        if again:
            self.tested.settle(hold, 0)
        self._count(self.reserved, hour, -amount)
        self._count(self.paid, hour, cost)

    @rule()
    def stop_and_start(self) -> None:
        self.tested.close()
        self._begin_again()

    @rule(written=st.booleans())
    def crash_and_start(self, written: bool) -> None:
        before = self.file.read_bytes() if self.file.is_file() else None
        self.memory.close()
        if not written:
            self.file.unlink(missing_ok=True)
            if before is not None:
                self.file.write_bytes(before)
        self._begin_again()

    def _begin_again(self) -> None:
        self._open()
        for _, hour, amount in self.pending:  # they may have run to their end
            self._count(self.reserved, hour, -amount)
            self._count(self.paid, hour, amount)
        self.pending.clear()

    @invariant()
    def no_window_is_overdrawn(self) -> None:
        limits = {allowance.period: allowance.limit for allowance in (self.hour, self.day)}
        for window in {*self.paid, *self.reserved}:
            assert self.paid[window] + self.reserved[window] <= limits[window[0]]


def test_no_order_of_events_overdraws_a_window() -> None:
    run_state_machine_as_test(AnyUse, settings=settings(max_examples=100, stateful_step_count=50, deadline=None))


@given(st.lists(st.integers(1, 400), max_size=60))
def test_calls_are_granted_exactly_up_to_the_limit(amounts: list[int]) -> None:
    tested = ledger(at(0.999))

    granted = 0
    for amount in amounts:
        fits = granted + amount <= 1000
        assert bool(tested.hold(amount, 0)) is fits
        granted += amount * fits
