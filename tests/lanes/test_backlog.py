"""The order of what waits. README.md beside this says which break each property was seen to catch."""

from collections import Counter
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.backlog import Backlog
from router.query import Priority
from router.tenants import Entry, FairQueue

SHARES = {Priority.INTERACTIVE: 0.5, Priority.STANDARD: 0.2, Priority.BATCH: 0.1}
MOST_WORK = 100
WORKS = st.integers(1, MOST_WORK)
PRIORITIES = st.sampled_from(Priority)
TENANTS = st.sampled_from(["ann", "bob", "cleo"])


def entry(
    priority: Priority = Priority.STANDARD,
    tenant: str = "ann",
    work: float = 1,
    arrived: float = 0,
    deadline: float = inf,
) -> Entry:
    return Entry(priority, tenant, work, arrived, deadline)


def drain(backlog: Backlog[Entry], now: float = 0) -> list[Entry]:
    taken = []
    while (one := backlog.take(now)) is not None:
        taken.append(one)
    return taken


class AnyOrder(RuleBasedStateMachine):
    """Whatever is called: bounds, bookkeeping, expiry and aging."""

    @initialize(capacity=st.integers(0, 8), aging_s=st.sampled_from([inf, 5.0]))
    def start(self, capacity: int, aging_s: float) -> None:
        self.now = 0.0
        self.aging_s = aging_s
        self.backlog = Backlog[Entry](capacity, SHARES, aging_s, {"ann": 3.0}, most_idle_tenants=2)
        self.waiting: list[Entry] = []
        self.expired: list[Entry] = []

    def drop_expired(self) -> None:
        late = [e for e in self.waiting if e.start_by <= self.now]
        self.expired += late
        self.waiting = [e for e in self.waiting if e not in late]

    @rule(
        priority=PRIORITIES,
        tenant=TENANTS,
        work=WORKS,
        patience=st.one_of(st.just(inf), st.integers(1, 10)),
        margin=st.integers(0, 3),
    )
    def offer(self, priority: Priority, tenant: str, work: int, patience: float, margin: int) -> None:
        one = Entry(priority, tenant, work, self.now, self.now + patience, self.now + patience - margin)
        assume(one.start_by > self.now)
        self.drop_expired()
        full = len(self.waiting) >= self.backlog.capacity

        loser = self.backlog.offer(one, self.now)

        assert (loser is not None) == full
        if loser is not one:
            self.waiting.append(one)
        if loser is not None and loser is not one:
            self.waiting.remove(loser)
            more_urgent = loser.priority.rank < priority.rank
            assert not more_urgent or self.within_room(priority), "only a class under its room displaces upwards"

    def within_room(self, priority: Priority) -> bool:
        others = sum(e.priority is priority for e in self.waiting) - 1
        return others < int(SHARES[priority] * self.backlog.capacity)

    @rule()
    def take(self) -> None:
        self.drop_expired()
        oldest = min(self.waiting, key=lambda e: e.number, default=None)

        one = self.backlog.take(self.now)

        assert (one is None) == (not self.waiting)
        if one is not None:
            assert one.start_by > self.now, "expired, and started all the same"
            if oldest is not None and self.now - oldest.arrived >= self.aging_s:
                assert one is oldest, "an aged one is next"
            self.waiting.remove(one)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        self.expire()

        assert self.backlog.cancel(one) == (one in self.waiting)
        assert not self.backlog.cancel(one)
        self.waiting = [e for e in self.waiting if e is not one]

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.drop_expired()

        reported = self.backlog.expire(self.now)

        assert sorted(e.number for e in reported) == sorted(e.number for e in self.expired)
        self.expired = []

    @rule()
    def look_for_the_next_expiry(self) -> None:
        self.expire()

        assert self.backlog.next_expiry() == min((e.start_by for e in self.waiting), default=inf)

    @invariant()
    def the_counts_are_right(self) -> None:
        still = [e for e in self.waiting if e.waits]
        assert len(self.backlog) == len(still) <= max(self.backlog.capacity, 0)
        for priority in Priority:
            mine = [e for e in still if e.priority is priority]
            queue = self.backlog.of(priority)
            assert queue.count == len(mine)
            assert queue.work == pytest.approx(sum(e.work for e in mine))
            assert {t.name: t.count for t in queue.tenants.values()} == Counter(e.tenant for e in mine)
            assert queue.oldest() is min(mine, key=lambda e: e.number, default=None)
            heaviest = queue.heaviest()
            loads = [t.work / t.weight for t in queue.tenants.values()]
            assert (heaviest.work / heaviest.weight if heaviest else None) == max(loads, default=None)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@given(
    shares=st.sampled_from([(0.5, 0.2, 0.1), (0.0, 0.5, 0.5), (0.2, 0.2, 0.6), (0.1, 0.8, 0.1), (1 / 3, 1 / 3, 1 / 3)]),
    works=st.lists(st.tuples(WORKS, WORKS, WORKS), min_size=1, max_size=30),
    waits=st.tuples(*[st.integers(0, 150)] * 3),
    steps=st.lists(st.tuples(PRIORITIES, WORKS, st.integers(0, 9)), max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_every_class_gets_its_share_of_the_work_while_it_waits(
    shares: tuple[float, ...],
    works: list[tuple[int, int, int]],
    waits: tuple[int, int, int],
    steps: list[tuple[Priority, int, int]],
) -> None:
    """Over any interval in which a class waits, it is never behind its share by more than six largest requests."""
    guaranteed = dict(zip(Priority, shares, strict=True))
    backlog = Backlog[Entry](10_000, guaranteed)
    for rank, priority in enumerate(Priority):
        for i in range(waits[rank]):
            backlog.offer(entry(priority, work=works[i % len(works)][rank]), 0)
    behind = dict.fromkeys(Priority, 0.0)
    for priority, work, takes in [*steps, (Priority.BATCH, 1, 500)]:
        backlog.offer(entry(priority, work=work), 0)
        for _ in range(takes):
            waited = [p for p in Priority if backlog.of(p).count]
            one = backlog.take(0)
            if one is None:
                break
            for p in Priority:
                missed = guaranteed[p] * one.work - (one.work if one.priority is p else 0)
                behind[p] = max(behind[p] + missed, 0) if p in waited and backlog.of(p).count else 0
            assert max(behind.values()) <= 6 * MOST_WORK


@given(st.sampled_from([0.1, 0.3]), st.lists(WORKS, min_size=200, max_size=200))
@settings(deadline=None)
def test_a_lower_class_takes_no_more_than_its_share_from_a_more_urgent_one(share: float, works: list[int]) -> None:
    backlog = Backlog[Entry](10_000, {Priority.BATCH: share})
    for work in works:
        backlog.offer(entry(Priority.INTERACTIVE, work=work), 0)
        backlog.offer(entry(Priority.BATCH, work=work), 0)

    served = dict.fromkeys(Priority, 0.0)
    while backlog.of(Priority.INTERACTIVE).count:
        one = backlog.take(0)
        assert one is not None
        served[one.priority] += one.work

    assert served[Priority.BATCH] == pytest.approx(share * sum(served.values()), abs=2 * MOST_WORK)


def test_capacity_that_others_left_is_held_against_a_class_for_four_turns_at_most() -> None:
    backlog = Backlog[Entry](1000, {Priority.BATCH: 0.25})
    for _ in range(500):
        backlog.offer(entry(Priority.BATCH, work=10), 0)
    for _ in range(400):
        backlog.take(0)
    for _ in range(400):
        backlog.offer(entry(Priority.INTERACTIVE, work=10), 0)

    first = [backlog.take(0) for _ in range(40)]

    assert sum(e is not None and e.priority is Priority.BATCH for e in first) == pytest.approx(10 - 4, abs=1)


@given(
    weights=st.fixed_dictionaries({t: st.sampled_from([0.5, 1.0, 4.0]) for t in ("ann", "bob", "cleo")}),
    works=st.fixed_dictionaries({t: st.lists(WORKS, min_size=30, max_size=30) for t in ("ann", "bob", "cleo")}),
    lag=st.integers(0, 20),
)
@settings(deadline=None)
def test_tenants_that_wait_are_served_alike(weights: dict[str, float], works: dict[str, list[int]], lag: int) -> None:
    """Theorem 1 of the SFQ paper: two that wait differ by no more than one largest request of each, over weights."""
    queue = FairQueue[Entry](weights, 100)
    number = 0
    for i in range(30):
        for tenant, lengths in works.items():
            if tenant == "ann" and i == 0:
                continue  # comes later: see below
            number += 1
            one = entry(tenant=tenant, work=lengths[i])
            one.number = number
            queue.add(one)
    for _ in range(lag):
        queue.take()
    served = dict.fromkeys(works, 0.0)
    while all(t in queue.tenants for t in works):
        one = queue.take()
        served[one.tenant] += one.work / weights[one.tenant]
        for a in works:
            for b in works:
                assert abs(served[a] - served[b]) <= MOST_WORK / weights[a] + MOST_WORK / weights[b]


def test_a_tenant_gets_nothing_for_the_time_it_did_not_ask() -> None:
    backlog = Backlog[Entry](1000, {})
    for _ in range(300):
        backlog.offer(entry(tenant="early", work=10), 0)
    for _ in range(150):
        backlog.take(0)
    for _ in range(100):
        backlog.offer(entry(tenant="late", work=10), 0)

    first = [backlog.take(0) for _ in range(100)]

    assert Counter(e.tenant for e in first if e) == {"early": 50, "late": 50}


def test_leaving_and_coming_back_wins_nothing() -> None:
    backlog = Backlog[Entry](1000, {})
    for _ in range(300):
        backlog.offer(entry(tenant="steady", work=10), 0)
    taken: list[str] = []
    while len(taken) < 200:
        if "coming" not in backlog.of(Priority.STANDARD).tenants:
            backlog.offer(entry(tenant="coming", work=10), 0)  # never more than one
        one = backlog.take(0)
        assert one is not None
        taken.append(one.tenant)

    assert Counter(taken)["coming"] == pytest.approx(100, abs=1)


@pytest.mark.parametrize(("used", "turns"), [(30, 25), (10, 50), (5, 67)])
def test_tokens_beyond_the_estimate_are_paid_later_and_those_saved_given_back(used: int, turns: int) -> None:
    backlog = Backlog[Entry](1000, {})
    for _ in range(400):
        for tenant in ("honest", "wrong"):
            backlog.offer(entry(tenant=tenant, work=10), 0)

    taken = []
    for _ in range(100):
        one = backlog.take(0)
        assert one is not None
        taken.append(one.tenant)
        backlog.settle(one, used if one.tenant == "wrong" else 10)

    assert Counter(taken)["wrong"] == pytest.approx(turns, abs=2)


def test_what_was_used_too_much_is_remembered_of_a_tenant_that_left() -> None:
    backlog = Backlog[Entry](1000, {})
    one = entry(tenant="wrong", work=10)
    backlog.offer(one, 0)
    backlog.take(0)
    for _ in range(100):
        backlog.offer(entry(tenant="honest", work=10), 0)
    for _ in range(50):
        backlog.take(0)
    backlog.settle(one, 210)

    for _ in range(10):
        backlog.offer(entry(tenant="wrong", work=10), 0)
    following = [e.tenant for e in drain(backlog)]

    assert following.index("wrong") == 0
    assert following[1:21] == ["honest"] * 20


def test_inside_a_tenant_the_earliest_deadline_goes_first() -> None:
    backlog = Backlog[Entry](100, {})
    for deadline in (30.0, 10.0, inf, 20.0, 10.0):
        backlog.offer(entry(deadline=deadline), 0)

    assert [(e.deadline, e.number) for e in drain(backlog)] == [(10, 2), (10, 5), (20, 4), (30, 1), (inf, 3)]


def test_the_most_urgent_class_goes_first() -> None:
    backlog = Backlog[Entry](100, {})
    for priority in (Priority.BATCH, Priority.INTERACTIVE, Priority.STANDARD):
        backlog.offer(entry(priority), 0)

    assert [e.priority for e in drain(backlog)] == list(Priority)


def test_a_full_backlog_sheds_the_least_urgent_latest_one() -> None:
    backlog = Backlog[Entry](4, SHARES)
    waiting = [entry(p) for p in (Priority.BATCH, Priority.STANDARD, Priority.BATCH, Priority.STANDARD)]
    for one in waiting:
        assert backlog.offer(one, 0) is None

    shed = [backlog.offer(entry(Priority.INTERACTIVE, f"tenant-{i}"), 0) for i in range(4)]

    assert shed == [waiting[2], waiting[0], waiting[3], waiting[1]]
    more = entry(Priority.STANDARD, "late")
    assert backlog.offer(more, 0) is more


def test_a_class_under_its_room_gets_into_a_backlog_full_of_more_urgent_work() -> None:
    backlog = Backlog[Entry](10, SHARES)
    urgent = [entry(Priority.INTERACTIVE) for _ in range(10)]
    for one in urgent:
        backlog.offer(one, 0)

    shed = [backlog.offer(entry(p), 0) for p in (Priority.BATCH, Priority.STANDARD, Priority.STANDARD)]
    refused = [backlog.offer(one, 0) is one for one in [entry(Priority.BATCH), entry(Priority.STANDARD)]]

    assert shed == [urgent[9], urgent[8], urgent[7]]
    assert refused == [True, True]


def test_a_tenant_that_fills_the_backlog_gives_way_to_another() -> None:
    backlog = Backlog[Entry](10, SHARES)
    flood = [entry(tenant="flood", work=10) for _ in range(10)]
    for one in flood:
        backlog.offer(one, 0)

    shed = [backlog.offer(entry(tenant="modest", work=10), 0) for _ in range(6)]

    assert shed[:4] == flood[:-5:-1]
    assert [s is not None and s.tenant for s in shed] == ["flood"] * 4 + ["flood", "modest"]


def test_memory_is_bounded_by_what_waits() -> None:
    backlog = Backlog[Entry](50, SHARES, most_idle_tenants=10)
    for i in range(5000):
        one = entry(Priority.BATCH, f"tenant-{i}", arrived=i, deadline=i + 1e6)
        backlog.offer(one, i)
        if i % 3 == 0:
            backlog.cancel(one)
        elif i % 3 == 1:
            backlog.take(i)
        else:
            backlog.settle(one, 50)
    queue = backlog.of(Priority.BATCH)

    assert 40 <= len(backlog) <= 50
    assert len(queue._idle) <= 10
    for kept in (queue._starts, queue._loads, queue._arrivals, backlog._expiries):
        assert len(kept) <= 2 * 50 + 64 + 1
