import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge.engine.settings import ConfigError
from loadtests.policy_traffic import Clock
from router.policy.ledger import Allowance, Hold, Ledger, Period
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
    before = ledger(at(0.999), file=file)
    before.settle(held(before.hold(300, 300)), 100)
    assert before.hold(200, 200)

    after = ledger(at(0.999), file=file)

    assert 1000 - 320 <= most(after) <= 1000 - 300


def test_after_a_crash_earlier_windows_are_known_too(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    clock = at(0.999)
    before = ledger(clock, file=file)
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


def test_the_file_is_written_some_fifty_times_a_window(tmp_path: Path) -> None:
    file = tmp_path / "spent.json"
    clock = at(0.999)
    tested = ledger(clock, Allowance(Period.HOUR, 10**6, 10**6), file=file)
    versions = set()
    for _ in range(10_000):
        assert tested.hold(100, 100)
        versions.add(file.read_bytes())

    assert 40 <= len(versions) <= 60


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

    @initialize(state=st.booleans())
    def begin(self, state: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "spent.json" if state else None
        self.clock = at(0)
        self.tested = ledger(self.clock, self.hour, self.day, file=self.file)
        self.pending: list[tuple[Hold, int, int]] = []
        self.paid: Counter[tuple[Period, int]] = Counter()
        self.reserved: Counter[tuple[Period, int]] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

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

    @precondition(lambda self: self.file)
    @rule(cleanly=st.booleans())
    def restart(self, cleanly: bool) -> None:
        if cleanly:
            self.tested.close()
        self.tested = ledger(self.clock, self.hour, self.day, file=self.file)
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
    run_state_machine_as_test(AnyUse, settings=settings(max_examples=150, stateful_step_count=60, deadline=None))


@given(st.lists(st.integers(1, 400), max_size=60))
def test_calls_are_granted_exactly_up_to_the_limit(amounts: list[int]) -> None:
    tested = ledger(at(0.999))

    granted = 0
    for amount in amounts:
        fits = granted + amount <= 1000
        assert bool(tested.hold(amount, 0)) is fits
        granted += amount * fits
