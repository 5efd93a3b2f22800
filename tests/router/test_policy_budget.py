from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edge.engine.settings import ConfigError
from loadtests.policy_traffic import CLOUD, Answers, Clock, Crowd, Spending
from router.config import BudgetPolicy, Config, OpenAITarget, Price, load_config
from router.decision import Target, Tier
from router.policy import Budget, Policy, Reservation, make_policy
from router.policy.money import PICOS, Tariff
from router.query import Conversation, Message, Parameters, Query, Usage

PRICE = Price(prompt_per_mtok=0.0375, completion_per_mtok=0.15, most_completion_tokens=1024)
TARIFF = Tariff.of(PRICE)
QUERY = Query(Conversation((Message("user", "Hello"),)), Parameters())
EDGE = Target("edge", Tier.EDGE)
LONGEST_CALL = TARIFF.bound(TARIFF.limit(QUERY)) / PICOS


def make_budget(clock: Clock, longest_calls: float, **section: object) -> Budget:
    """A budget of an hour."""
    policy = BudgetPolicy(per_hour=longest_calls * LONGEST_CALL, **section)  # type: ignore[arg-type]
    return Budget(policy, {CLOUD.name: TARIFF}, clock, None)


def granted(found: Reservation | None) -> Reservation:
    """A reservation that could be afforded."""
    assert found is not None
    return found


def paid(policy: Policy) -> Decimal:
    """In the hour."""
    return policy.statistics().balances[0].paid


def spend(crowd: Crowd, longest_calls: float, *, seed: int, hours: float = 1) -> tuple[Spending, list[float]]:
    """What a crowd did, and the parts of the limit that it spent, hour by hour."""
    clock = Clock()
    spending = crowd.spend(make_budget(clock, longest_calls), TARIFF, clock, hours=hours, seed=seed)
    limit = longest_calls * LONGEST_CALL * PICOS
    return spending, [cost / limit for cost in spending.hours()]


@pytest.mark.parametrize("answers", Answers)
@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_clients_spend_all_but_never_more(answers: Answers, seed: int) -> None:
    crowd = Crowd(answers=answers, edge_s=60, cloud_s=20)

    spending, parts = spend(crowd, 150, seed=seed, hours=2)

    assert spending.most_in_flight == 200
    assert len(parts) == 2
    assert all(0.95 <= part <= 1 for part in parts)


def test_money_goes_to_the_hardest_queries() -> None:
    spending, _ = spend(Crowd(edge_s=60), 300, seed=1)

    scores, sent = np.array(spending.scores), np.array(spending.sent)
    hardest = np.sort(scores)[-int(sent.sum()) :].mean()

    assert sent.mean() < 0.5
    assert (scores[sent].mean() - scores.mean()) / (hardest - scores.mean()) >= 0.9
    assert spending.refused < 0.1 * sent.sum()


def test_money_is_spent_evenly() -> None:
    spending, parts = spend(Crowd(edge_s=60, answers=Answers.SHORT), 100, seed=1)

    total = sum(spending.costs.values())
    by_minute = np.cumsum([cost for _, cost in sorted(spending.costs.items())]) / total * parts[0]

    assert len(by_minute) == 60
    assert np.abs(by_minute - np.arange(1, 61) / 60).max() <= 0.05 + 0.03, (
        "the burst, and calls that cost more than most"
    )


def test_nothing_is_withheld_while_the_money_lasts() -> None:
    spending, parts = spend(Crowd(think_s=100), 1900, seed=1, hours=2)

    assert 0.5 < parts[1] < 0.85
    assert all(spending.sent[len(spending.sent) // 2 :])


def test_equal_scores_share_the_money_too() -> None:
    spending, parts = spend(Crowd(edge_s=60, constant=True), 300, seed=1)

    assert 0.95 <= parts[0] <= 1
    assert spending.refused < 0.2 * sum(spending.sent)


def test_calls_that_no_score_decides_are_paid_first() -> None:
    spending, parts = spend(Crowd(edge_s=60, unscored=0.2), 900, seed=1)

    assert 0.95 <= parts[0] <= 1
    assert spending.refused < 0.2 * sum(spending.sent)


def test_a_call_is_paid_by_its_tokens() -> None:
    budget = make_budget(Clock(), 1, burst_share=1)

    granted(budget.reserve(CLOUD, QUERY)).settle(Usage(10, 20))

    assert paid(budget) == Decimal("0.000003375")
    assert budget.statistics().balances[0].reserved == 0


@pytest.mark.parametrize("usage", [None, Usage(), Usage(0, 7)])
def test_a_call_without_a_count_is_paid_in_full(usage: Usage | None) -> None:
    budget = make_budget(Clock(), 1, burst_share=1)

    granted(budget.reserve(CLOUD, QUERY)).settle(usage)

    assert paid(budget) == budget.statistics().balances[0].limit
    assert budget.reserve(CLOUD, QUERY) is None
    assert budget.statistics().balances[0].refused == 1


def test_a_call_that_never_was_costs_nothing_and_only_the_first_word_counts() -> None:
    budget = make_budget(Clock(), 1, burst_share=1)
    reservation = granted(budget.reserve(CLOUD, QUERY))

    reservation.release()
    reservation.settle(None)

    assert paid(budget) == 0
    assert budget.reserve(CLOUD, QUERY)


def test_the_query_comes_back_with_an_end() -> None:
    budget = make_budget(Clock(), 10, burst_share=1)
    short = replace(QUERY, parameters=Parameters(max_tokens=5))

    assert granted(budget.reserve(CLOUD, QUERY)).query.parameters.max_tokens == 1024
    assert granted(budget.reserve(CLOUD, short)).query == short


def test_a_target_without_a_price_is_free() -> None:
    budget = make_budget(Clock(), 0.001)

    assert budget.reserve(CLOUD, QUERY) is None
    assert granted(budget.reserve(EDGE, QUERY)).query == QUERY


def test_easy_queries_stay_at_the_edge_however_much_money_there_is() -> None:
    assert make_budget(Clock(), 100).threshold == 0
    assert make_budget(Clock(), 100, least_score=0.2).threshold == 0.2


def test_a_clock_that_stands_or_goes_back_withholds_nothing() -> None:
    clock = Clock()
    budget = make_budget(clock, 1000)
    granted(budget.reserve(CLOUD, QUERY)).settle(Usage(10, 20))
    for _ in range(50):
        budget.observe(0.5, Tier.EDGE)
        clock.now -= 1

    assert budget.threshold == 0


def configured(tmp_path: Path, state_file: Path | None) -> Config:
    """A router with one priced target."""
    target = OpenAITarget(tier=Tier.CLOUD, url="http://127.0.0.1:1", chat_model="m", price=PRICE)
    limit = 10 * LONGEST_CALL
    policy = BudgetPolicy(per_hour=limit, per_day=limit, burst_share=1, state_file=state_file)
    return Config(targets={CLOUD.name: target}, policy=policy)


def test_a_restart_knows_what_was_spent(tmp_path: Path) -> None:
    config = configured(tmp_path, tmp_path / "spent.json")
    before = make_policy(config, Clock())
    for _ in range(3):
        granted(before.reserve(CLOUD, QUERY)).settle(None)
    open_call = granted(before.reserve(CLOUD, QUERY))
    before.close()
    open_call.settle(None)

    after = make_policy(config, Clock())

    assert sum(1 for _ in range(10) if after.reserve(CLOUD, QUERY)) == 6


def test_without_a_state_file_a_restart_forgets(tmp_path: Path) -> None:
    config = configured(tmp_path, None)
    before = make_policy(config, Clock())
    granted(before.reserve(CLOUD, QUERY)).settle(None)
    before.close()

    assert paid(make_policy(config, Clock())) == 0
    assert list(tmp_path.iterdir()) == []


CLOUD_TARGET = "chat_model: m, price: {prompt_per_mtok: 1, completion_per_mtok: 2}"
FILE = """
policy: {kind: budget, per_hour: 1, per_day: 20}
targets:
  site: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}
  far: {backend: openai, tier: cloud, url: "http://127.0.0.1:2", CLOUD_TARGET}
""".replace("CLOUD_TARGET", CLOUD_TARGET)


def test_a_budget_with_limit_and_prices_is_good(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text(FILE)

    assert isinstance(make_policy(load_config(tmp_path / "router.yaml")), Budget)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per_hour: 1, per_day: 20", "", "policy: a budget without a limit; set per_hour, per_day or both"),
        (CLOUD_TARGET, "chat_model: m", "targets.far.price: missing; a budget needs the price"),
        ("per_hour: 1,", "per_hour: 0.008,", "policy: 0.008 cannot pay one answer of far (up to 0.008192)"),
        ("per_hour: 1,", "per_hour: 0,", "$.policy.per_hour"),
        ("per_hour: 1,", "per_hour: .nan,", "$.policy.per_hour"),
        ("per_hour: 1,", "per_hour: .inf,", "$.policy.per_hour"),
        ("per_hour: 1,", "burst_share: 0,", "$.policy.burst_share"),
        ("per_hour: 1,", "per_week: 1,", "unknown field `per_week`"),
        ("per_hour: 1,", "state_file: gone/spent.json,", "gone is not a folder; create it"),
        ("prompt_per_mtok: 1", "prompt_per_mtok: -1", "price.prompt_per_mtok"),
        ("kind: budget, per_hour: 1, per_day: 20", "kind: cloud_share", "missing required field `share`"),
        ("kind: budget, per_hour: 1, per_day: 20", "kind: cloud_share, share: 30", "$.policy.share"),
        ("kind: budget", "kind: thrift", "Invalid value 'thrift'"),
    ],
)
def test_a_mistake_in_the_policy_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in FILE
    (tmp_path / "router.yaml").write_text(FILE.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "router.yaml")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
