from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.policy_traffic import CLOUD, Drift, Traffic, send, worst_deviation
from router.decision import Tier
from router.policy import CloudShare, FixedThreshold
from router.policy.recent import NEVER, Dither, RecentScores
from router.query import Conversation, Message, Parameters, Query

SCORES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
QUERY = Query(Conversation((Message("user", "Hello"),)), Parameters())


@given(st.lists(SCORES, min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(1, 40))
def test_the_line_sends_the_wanted_share_of_the_last_scores(scores: list[float], share: float, capacity: int) -> None:
    recent = RecentScores(capacity)
    for score in scores:
        recent.add(score)
    last = np.array(deque(scores, maxlen=capacity))

    dithers = (np.arange(200) + 0.5) / 200
    sent = np.mean([np.mean(last >= recent.line(share, dither)) for dither in dithers])

    assert sent == pytest.approx(share, abs=1 / 200)


@pytest.mark.parametrize(("share", "line"), [(0.0, NEVER), (-1.0, NEVER), (1.0, 0.0), (2.0, 0.0), (0.3, 0.7)])
def test_the_line_without_scores(share: float, line: float) -> None:
    assert RecentScores(4).line(share, 0.5) == pytest.approx(line)


def test_every_stretch_of_the_dither_is_spread_evenly() -> None:
    dither = Dither()
    below = np.cumsum([dither.draw() < 0.3 for _ in range(5000)])

    assert np.abs(below[100:] - below[:-100] - 30).max() <= 3


@given(st.lists(SCORES, max_size=400), st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
def test_no_order_of_scores_moves_the_share_by_more_than_one_slack(scores: list[float], share: float) -> None:
    sent = send(CloudShare(share, 20), Traffic(np.array(scores), np.zeros(len(scores))))

    excess = np.cumsum(np.concatenate([[0.0], sent - share]))

    assert excess.max() - excess.min() <= 80 + 2


@pytest.mark.parametrize("rising", [True, False])
def test_scores_that_only_rise_or_fall_are_shared_too(rising: bool) -> None:
    scores = np.linspace(0, 1, 3000)[:: 1 if rising else -1]

    sent = send(CloudShare(0.3, 1000), Traffic(scores, np.zeros(3000)))

    assert worst_deviation(sent, 0.3, window=1000, warm_up=250) <= 0.08


@pytest.mark.parametrize("drift", Drift)
def test_the_share_holds_in_every_window_and_costs_little_quality(drift: Drift) -> None:
    traffic = Traffic.draw(drift, 5000, seed=3)

    sent = send(CloudShare(0.3, 1000), traffic)

    assert worst_deviation(sent, 0.3, window=1000, warm_up=250) <= 0.02
    assert traffic.recovered(sent) >= 0.9 * traffic.recovered(traffic.best_fixed(int(sent.sum())))


@pytest.mark.parametrize("in_flight", [0, 64])
def test_the_share_holds_when_all_scores_are_equal(in_flight: int) -> None:
    sent = send(CloudShare(0.3, 1000), Traffic.constant(5000, seed=0), in_flight)

    assert worst_deviation(sent, 0.3, window=1000, warm_up=250) <= 0.02


def test_the_share_holds_when_decisions_are_observed_late() -> None:
    sent = send(CloudShare(0.3, 1000), Traffic.draw(Drift.SWING, 5000, seed=3), in_flight=64)

    assert worst_deviation(sent, 0.3, window=1000, warm_up=250) <= 0.04


def test_an_outage_of_the_cloud_is_not_made_good_for_long() -> None:
    policy = CloudShare(0.3, 1000)
    scores = Traffic.draw(Drift.STEADY, 5000, seed=1).scores.tolist()
    for score in scores[:2000]:
        policy.observe(score, Tier.EDGE)

    sent = send(policy, Traffic(np.array(scores[2000:]), np.zeros(3000)))

    assert 300 < sent[:1000].sum() <= 300 + 80 + 10
    assert worst_deviation(sent, 0.3, window=1000, warm_up=500) <= 0.02


def test_statistics_tell_the_share_and_when_it_is_warm() -> None:
    policy = CloudShare(0.5, 40)
    assert policy.statistics().cloud_share is None

    for score, tier in [(0.1, Tier.EDGE), (0.9, Tier.CLOUD)] * 4:
        policy.observe(score, tier)
    cold = policy.statistics()
    for _ in range(2):
        policy.observe(0.2, Tier.EDGE)
    warm = policy.statistics()

    assert (cold.cloud_share, cold.warm) == (0.5, False)
    assert (warm.cloud_share, warm.warm) == (0.4, True)
    assert warm.threshold == policy.statistics().threshold, "looking moves nothing"


def test_the_recovered_gain_is_that_of_a_case_counted_by_hand() -> None:
    traffic = Traffic(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))

    # half sent: random gains 0.5 * 0.5 = 0.25, the oracle 0.5, the two highest scores 0.25
    assert traffic.recovered(traffic.best_fixed(2)) == 0
    assert traffic.recovered(np.array([True, False, True, False])) == 1


def test_a_policy_without_money_reserves_everything() -> None:
    for policy in (FixedThreshold(0.4), CloudShare(0.3, 100)):
        reservation = policy.reserve(CLOUD, QUERY)

        assert reservation is not None
        assert reservation.query == QUERY
