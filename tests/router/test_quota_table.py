"""Quotas that several processes count together."""

import os
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.lanes import Quota, Quotas
from router.errors import QuotaError
from router.processes.quota_table import QuotaTable, SharedAccounts
from router.quota import Accounts

TIGHT = Quotas(default=Quota(requests_per_min=60.0, tokens_per_min=6000.0))


def count_admitted(accounts: Accounts, tenant: str, tries: int, clock: Callable[[], float]) -> int:
    admitted = 0
    for _ in range(tries):
        try:
            accounts.reserve(tenant, 10.0, clock())
        except QuotaError:
            continue
        admitted += 1
    return admitted


def test_two_processes_admit_no_more_than_one_would() -> None:
    table = QuotaTable(100)
    now = time.monotonic()
    reading, writing = os.pipe()
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            accounts = SharedAccounts(TIGHT, table)
            os.write(writing, b"%4d" % count_admitted(accounts, "shop", 5000, lambda: now))
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0

    admitted = [int(os.read(reading, 4)) for _ in children]

    os.close(reading)
    os.close(writing)
    assert sum(admitted) == 60


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.floats(0, 300), st.floats(0, 5)), max_size=40))
def test_two_that_share_a_table_answer_as_one_alone(steps: list[tuple[int, str, float, float]]) -> None:
    table, alone, now = QuotaTable(100), Accounts(TIGHT), 1000.0
    shared = [SharedAccounts(TIGHT, table) for _ in range(2)]
    for which, tenant, tokens, pause_s in steps:
        now += pause_s
        results: list[object] = []
        for accounts in (alone, shared[which]):
            try:
                hold = accounts.reserve(tenant, tokens, now)
            except QuotaError as exc:
                results.append(str(exc))
            else:
                accounts.settle(hold, tokens / 2, now)
                results.append(accounts.headers(tenant, now))
        assert results[0] == results[1]


def test_a_full_set_forgets_who_asked_longest_ago() -> None:
    table = QuotaTable(4)  # one set of eight rows
    accounts = SharedAccounts(TIGHT, table)
    for number in range(8):
        accounts.reserve(f"tenant-{number}", 100.0, 1000.0 + number / 100)

    accounts.reserve("newcomer", 100.0, 1001.0)

    fresh = SharedAccounts(TIGHT, table)
    left = [fresh.allowances(f"tenant-{number}", 1000.0)[0] for number in (7, 0)]
    assert [allowance.remaining if allowance else None for allowance in left] == [59, 60]


def test_what_was_taken_is_settled_though_its_account_was_forgotten() -> None:
    quotas = Quotas(default=TIGHT.default, most_tenants=1)
    accounts = SharedAccounts(quotas, QuotaTable(100))
    hold = accounts.reserve("shop", 1000.0, 1000.0)
    accounts.reserve("other", 1000.0, 1000.0)

    accounts.settle(hold, 0.0, 1000.0)

    tokens = accounts.allowances("shop", 1000.0)[1]
    assert tokens is not None
    assert tokens.remaining == 6000


@pytest.mark.parametrize("quota", [Quota(requests_per_min=60.0), Quota(tokens_per_min=600.0)])
def test_one_limit_alone(quota: Quota) -> None:
    quotas = Quotas(default=quota)
    table = QuotaTable(100)
    first, second = (SharedAccounts(quotas, table) for _ in range(2))

    admitted = [count_admitted(one, "shop", 100, lambda: 1000.0) for one in (first, second)]

    assert admitted == [60, 0]
