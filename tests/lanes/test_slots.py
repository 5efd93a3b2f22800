"""Slots over a backlog, without waiting. README.md beside this says which break each property was seen to catch."""

from math import inf

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.config.lanes import Adaptive, Lane, MostWait
from router.query import Priority
from router.rates import Rates, Sample, Work
from router.slots import Slots
from router.tickets import OTHERS, Demand, Refusal, State, Ticket

WORK = Work(50, 50)
OPEN = {State.WAITING, State.RUNNING}


def known(service_s: float = 1.0) -> Rates:
    """Of a target that takes so long for every request, half of it until the first token."""
    rates = Rates()
    for _ in range(50):
        rates.add(Sample(WORK, service_s, service_s / 2))
    return rates


def ignore(_: Ticket) -> None:
    """Nobody waits."""


def demand(
    priority: Priority = Priority.STANDARD, tenant: str = "ann", deadline: float = inf, work: Work = WORK
) -> Demand:
    return Demand(priority, tenant, work, deadline)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is called, in any order, at any time."""

    @initialize(
        slots=st.integers(1, 3),
        backlog=st.integers(0, 4),
        adaptive=st.booleans(),
        rates=st.sampled_from([None, 0.5, 3.0]),
    )
    def start(self, slots: int, backlog: int, adaptive: bool, rates: float | None) -> None:
        self.now = 0.0
        moving = Adaptive(least=1, most=4) if adaptive else None
        self.config = Lane(slots=slots, adaptive=moving, backlog=backlog, aging_s=20)
        self.tickets: list[Ticket] = []
        self.told: list[Ticket] = []
        self.slots = Slots(self.config, known(rates) if rates else Rates(), self.told.append)

    @rule(priority=st.sampled_from(Priority), tenant=st.sampled_from("ab"), patience=st.sampled_from([0.0, 1, 5, inf]))
    def offer(self, priority: Priority, tenant: str, patience: float) -> None:
        self.check_told({t: t.state for t in self.tickets}, None)
        before = {t: t.state for t in self.tickets}

        ticket = self.slots.offer(demand(priority, tenant, self.now + patience), self.now)

        assert (ticket.state is State.EXPIRED) == (patience == 0), "too late, and started all the same"
        assert (ticket.refusal is not None) == (ticket.state is State.REFUSED)
        self.check_told(before, ticket)
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), finished=st.booleans())
    def leave(self, data: st.DataObject, finished: bool) -> None:
        ticket = data.draw(st.sampled_from(self.tickets[-12:]))
        sample = Sample(WORK, self.now - ticket.started, None) if finished else None
        before = {t: t.state for t in self.tickets}
        was = ticket.state

        self.slots.leave(ticket, self.now, sample)

        after = {State.WAITING: State.CANCELLED, State.RUNNING: State.DONE}
        assert ticket.state is after.get(was, was)
        self.check_told(before, ticket)

    @rule()
    def expire(self) -> None:
        before = {t: t.state for t in self.tickets}

        self.slots.expire(self.now)

        assert all(t.start_by > self.now for t in self.tickets if t.state is State.WAITING)
        self.check_told(before, None)

    @rule(seconds=st.sampled_from([0.3, 1.0, 7.0, 30.0]))
    def wait(self, seconds: float) -> None:
        assume(self.now < 1000)
        self.now += seconds

    def check_told(self, before: dict[Ticket, State], but: Ticket | None) -> None:
        """Each ticket that others moved is told of once, and none that was over moves again."""
        moved = [t for t, state in before.items() if t.state is not state and t is not but]
        assert sorted(map(id, moved)) == sorted(map(id, self.told))
        for ticket in moved:
            assert before[ticket] is State.WAITING
            if ticket.state is State.RUNNING:
                assert ticket.start_by > self.now, "too late, and started all the same"
                assert ticket.started == self.now
        self.told.clear()

    @invariant()
    def no_more_run_than_may(self) -> None:
        running = sum(t.state is State.RUNNING for t in self.tickets)
        assert self.slots.running == running
        most = 4 if self.config.adaptive else self.config.slots
        assert running <= most

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        waiting = [t for t in self.tickets if t.state is State.WAITING]
        assert self.slots.running >= self.slots.slots or not waiting

    @invariant()
    def everyone_is_counted(self) -> None:
        statistics = self.slots.statistics(self.now)
        for priority, seen in statistics.classes.items():
            mine = [t.state for t in self.tickets if t.priority is priority]
            assert seen.waiting == mine.count(State.WAITING)
            assert seen.count.started == mine.count(State.RUNNING) + mine.count(State.DONE)
            assert seen.count.done == mine.count(State.DONE)
            assert seen.count.refused == mine.count(State.REFUSED)
            assert seen.count.shed == mine.count(State.SHED)
            assert seen.count.expired == mine.count(State.EXPIRED)
            assert seen.count.cancelled == mine.count(State.CANCELLED)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize(("slots", "backlog"), [(1, 0), (1, 1), (3, 5), (8, 64)])
def test_of_one_too_many_at_once_exactly_one_is_refused(slots: int, backlog: int) -> None:
    core = Slots(Lane(slots=slots, backlog=backlog), Rates(), ignore)

    states = [core.offer(demand(), 0).state for _ in range(slots + backlog + 1)]

    assert states == [State.RUNNING] * slots + [State.WAITING] * backlog + [State.REFUSED]


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("backlog", [1, 6])
@pytest.mark.parametrize("stagger_s", [0.0, 0.1])
def test_who_comes_back_when_told_finds_room_and_not_much_sooner(slots: int, backlog: int, stagger_s: float) -> None:
    """Up to five are refused at once; each is told when a place that nobody else was told of gets free."""
    core = Slots(Lane(slots=slots, backlog=backlog), known(1.0), ignore)
    tickets = []
    now = 0.0
    for i in range(slots + backlog):
        now = i * stagger_s
        tickets.append(core.offer(demand(), now))
    refused = [core.offer(demand(), now) for _ in range(min(5, backlog))]
    told = [now + t.retry_after_s for t in refused if t.retry_after_s is not None]
    assert len(told) == len(refused)

    opened: list[float] = []
    running = [t for t in tickets if t.state is State.RUNNING]
    while len(opened) < len(told):
        first = min(running, key=lambda t: t.started)
        core.leave(first, first.started + 1.0, Sample(WORK, 1.0, 0.5))
        opened.append(first.started + 1.0)
        running = [t for t in tickets if t.state is State.RUNNING]

    for said, true in zip(told, opened, strict=True):
        assert said == pytest.approx(true)


def test_promises_of_room_reach_no_further_than_the_backlog() -> None:
    core = Slots(Lane(slots=2, backlog=10), known(1.0), ignore)
    for _ in range(12):
        core.offer(demand(), 0)

    told = [core.offer(demand(), 0).retry_after_s for _ in range(100)]

    assert told[0] == pytest.approx(1.0)
    assert told[9] == pytest.approx(5.0)
    assert told[-1] == pytest.approx(6.0)


def test_hopeless_deadlines_are_refused_before_any_work_and_told_when_to_come() -> None:
    core = Slots(Lane(slots=2, backlog=100), known(1.0), ignore)
    for _ in range(10):
        core.offer(demand(), 0)
    # eight wait for two slots: a newcomer's turn is after 4.5 s

    soon = core.offer(demand(deadline=3.0), 0)
    late = core.offer(demand(deadline=6.0), 0)
    never = core.offer(demand(deadline=0.5), 0)

    assert (soon.state, soon.refusal) == (State.REFUSED, Refusal.DEADLINE)
    assert soon.retry_after_s == pytest.approx(2.5)
    assert late.state is State.WAITING
    assert (never.state, never.retry_after_s) == (State.REFUSED, None)


def test_a_wait_beyond_what_a_class_allows_is_refused() -> None:
    core = Slots(Lane(slots=1, backlog=100, most_wait=MostWait(interactive_s=3.0)), known(1.0), ignore)

    states = [core.offer(demand(Priority.INTERACTIVE), 0).refusal for _ in range(6)]

    assert states == [None, None, None, None, Refusal.WAIT, Refusal.WAIT]


def test_work_that_cannot_end_in_time_is_dropped_not_started() -> None:
    core = Slots(Lane(slots=1, backlog=10), Rates(), ignore)
    first = core.offer(demand(), 0)
    doomed, fine = core.offer(demand(deadline=4.0), 0), core.offer(demand(deadline=9.0), 0)

    core.leave(first, 4.0)

    assert (doomed.state, fine.state) == (State.EXPIRED, State.RUNNING)


def test_what_comes_too_late_is_expired_even_with_free_slots() -> None:
    core = Slots(Lane(slots=1, doomed_part=0), Rates(), ignore)

    assert core.offer(demand(deadline=5.0), 5.0).state is State.EXPIRED
    assert core.offer(demand(deadline=5.0), 4.9).state is State.RUNNING


def test_the_wait_of_a_tenant_is_not_that_of_the_flood_beside_it() -> None:
    core = Slots(Lane(slots=2, backlog=1000, aging_s=1000), known(1.0), ignore)
    for _ in range(202):
        core.offer(demand(tenant="flood"), 0)

    flood = core.forecast(demand(tenant="flood"), 0)
    modest = core.forecast(demand(tenant="modest"), 0)

    assert flood.wait_s == pytest.approx(100.5)
    assert modest.wait_s == pytest.approx(1.0)
    assert modest.first_s == pytest.approx(1.5)
    assert modest.finish_s == pytest.approx(2.0)


def test_a_free_slot_is_forecast_as_no_wait_and_an_unknown_target_as_nothing() -> None:
    assert Slots(Lane(slots=2), known(1.0), ignore).forecast(demand(), 0).wait_s == 0
    unknown = Slots(Lane(slots=1), Rates(), ignore)
    unknown.offer(demand(), 0)
    assert unknown.forecast(demand(), 0).finish_s == 0


def test_adaptive_slots_grow_while_latency_rests_and_let_the_next_ones_in() -> None:
    core = Slots(Lane(adaptive=Adaptive(least=2, most=6), backlog=500), Rates(), ignore)
    tickets = [core.offer(demand(), 0) for _ in range(400)]
    assert core.running == 2

    for step in range(60):
        oldest = next(t for t in tickets if t.state is State.RUNNING)
        core.leave(oldest, step, Sample(WORK, 1.0, 0.5))

    assert core.slots == core.running == 6


def test_statistics_name_the_tenants_with_the_most_waiting_first() -> None:
    core = Slots(Lane(slots=1, backlog=100), Rates(), ignore)
    for i, tenant in enumerate(["idle", *["a"] * 3, *["b"] * 5, "c"]):
        core.offer(demand(tenant=tenant), i)

    statistics = core.statistics(20)

    assert [(t.tenant, t.waiting, t.waiting_tokens, t.count.started) for t in statistics.tenants] == [
        ("b", 5, 500, 0),
        ("a", 3, 300, 0),
        ("c", 1, 100, 0),
        ("idle", 0, 0, 1),
    ]
    assert statistics.classes[Priority.STANDARD].oldest_wait_s == 19
    assert (statistics.slots, statistics.running, statistics.backlog) == (1, 1, 9)


def test_tenants_beyond_the_first_share_a_tally() -> None:
    core = Slots(Lane(slots=1, backlog=200), Rates(), ignore)
    tickets = [core.offer(demand(tenant=f"t{i}"), 0) for i in range(150)]
    for ticket in tickets:
        core.leave(ticket, 5)

    tenants = core.statistics(5).tenants
    others = [t for t in tenants if t.tenant == OTHERS]

    assert len(tenants) == 129
    assert [(t.waiting, t.count.done + t.count.cancelled) for t in others] == [(0, 22)]
    assert sum(t.count.done for t in tenants) == core.statistics(5).classes[Priority.STANDARD].count.done
