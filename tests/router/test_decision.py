import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router.decision import (
    Decision,
    Evidence,
    Label,
    Reason,
    Rules,
    Score,
    Target,
    Tier,
    decide,
    select_eligible,
)
from router.errors import ForbiddenError, RouterError, UnavailableError, UnknownModelError, UnsupportedError
from router.query import Capability

EDGE = Target("shop", Tier.EDGE, frozenset({Capability.JSON_SCHEMA}))
CLOUD = Target("h100", Tier.CLOUD, frozenset({Capability.JSON_SCHEMA, Capability.TOOLS}))
BOTH = [EDGE, CLOUD]
UP = {"shop", "h100"}


def choose(rules: Rules, *, score: float | None = 0.2, up: set[str] = UP, band: float | None = None) -> Decision:
    """Both steps, as the router takes them."""
    given = None if score is None else Score(score, Evidence.FEATURES)
    return decide(select_eligible(rules, BOTH), score=given, threshold=0.5, up=up, band=band)


@pytest.mark.parametrize(
    ("score", "tier", "reason"), [(0.2, "edge", "easy"), (0.5, "cloud", "hard"), (0.9, "cloud", "hard")]
)
def test_the_score_decides_when_nothing_else_does(score: float, tier: str, reason: str) -> None:
    decision = choose(Rules(), score=score)

    assert (decision.tier, decision.reason, decision.degraded) == (tier, reason, False)


@pytest.mark.parametrize(
    ("rules", "target", "reason"),
    [
        (Rules(model="cloud"), CLOUD, Reason.MODEL),
        (Rules(model="h100"), CLOUD, Reason.MODEL),
        (Rules(wish=Tier.CLOUD), CLOUD, Reason.WISH),
        (Rules(labels=frozenset({Label.EDGE_ONLY})), EDGE, Reason.LABEL),
        (Rules(tiers=frozenset({Tier.CLOUD})), CLOUD, Reason.KEY),
        (Rules(needs=frozenset({Capability.TOOLS})), CLOUD, Reason.CAPABILITY),
    ],
)
def test_each_rule_beats_the_score_and_is_named(rules: Rules, target: Target, reason: Reason) -> None:
    decision = choose(rules, score=0.01 if target is CLOUD else 0.99)

    assert (decision.target, decision.reason, decision.fallback) == (target, reason, None)


def test_a_tier_that_is_down_is_answered_by_the_other_and_says_so() -> None:
    decision = choose(Rules(), score=0.9, up={"shop"})

    assert (decision.target, decision.reason, decision.degraded) == (EDGE, Reason.FALLBACK, True)


def test_a_fallback_never_goes_against_a_rule() -> None:
    with pytest.raises(UnavailableError, match="shop"):
        choose(Rules(labels=frozenset({Label.EDGE_ONLY})), up={"h100"})


@pytest.mark.parametrize(
    ("rules", "error", "param"),
    [
        (Rules(model="gpt-9"), UnknownModelError, "model"),
        (Rules(model="shop", wish=Tier.CLOUD), ForbiddenError, "x-route"),
        (Rules(model="cloud", labels=frozenset({Label.EDGE_ONLY})), ForbiddenError, "x-data-label"),
        (Rules(model="cloud", tiers=frozenset({Tier.EDGE})), ForbiddenError, "model"),
        (Rules(needs=frozenset({Capability.IMAGES})), UnsupportedError, "messages"),
        (Rules(model="edge", needs=frozenset({Capability.TOOLS})), UnsupportedError, "tools"),
    ],
)
def test_what_no_target_may_answer_is_refused_with_its_parameter(
    rules: Rules, error: type[RouterError], param: str
) -> None:
    with pytest.raises(error) as caught:
        select_eligible(rules, BOTH)

    assert caught.value.param == param


@given(
    st.lists(
        st.tuples(st.sampled_from(Tier), st.frozensets(st.sampled_from(Capability), max_size=3)), min_size=1, max_size=6
    ),
    st.builds(
        Rules,
        model=st.sampled_from(["auto", "edge", "cloud", "t0", "t3"]),
        wish=st.none() | st.sampled_from(Tier),
        labels=st.frozensets(st.sampled_from(Label)),
        tiers=st.frozensets(st.sampled_from(Tier), min_size=1),
        needs=st.frozensets(st.sampled_from(Capability), max_size=2),
    ),
    st.floats(0, 1),
    st.frozensets(st.integers(0, 5)),
    st.none() | st.floats(0, 100),
)
def test_no_decision_ever_breaks_a_rule(
    made: list[tuple[Tier, frozenset[Capability]]], rules: Rules, score: float, up: frozenset[int], band: float | None
) -> None:
    targets = [Target(f"t{i}", tier, supports) for i, (tier, supports) in enumerate(made)]
    alive = {f"t{i}" for i in up}
    try:
        eligible = select_eligible(rules, targets)
        decision = decide(eligible, score=Score(score, Evidence.FEATURES), threshold=0.5, up=alive, band=band)
    except RouterError:
        return

    for target in filter(None, [decision.target, decision.fallback, decision.escalation]):
        assert target.name in alive
        assert target.tier in rules.tiers
        assert rules.wish in {None, target.tier}
        assert rules.model in {"auto", target.tier, target.name}
        assert rules.needs <= target.supports
        assert target.tier is Tier.EDGE or Label.EDGE_ONLY not in rules.labels


def test_falling_back_names_itself_and_happens_once() -> None:
    decision = replace(choose(Rules()), fallback=CLOUD)

    fallen = decision.fall_back()

    assert fallen is not None
    assert (fallen.target, fallen.reason, fallen.degraded) == (CLOUD, Reason.FALLBACK, True)
    assert fallen.fall_back() is None


@pytest.mark.parametrize(
    ("score", "band", "reason"),
    [
        (0.4, 0.5, "checked"),
        (0.6, 0.5, "checked"),
        (0.2, 0.5, "easy"),
        (0.8, 0.5, "hard"),
        (0.999, 100.0, "checked"),
        (0.0, 100.0, "checked"),
        (0.4, None, "easy"),
    ],
)
def test_scores_near_the_threshold_put_the_edge_on_trial(score: float, band: float | None, reason: str) -> None:
    decision = choose(Rules(), score=score, band=band)

    assert decision.reason == reason
    assert decision.on_trial is (reason == "checked")
    assert decision.target is (CLOUD if reason == "hard" else EDGE)


@pytest.mark.parametrize("up", [{"shop"}, {"h100"}])
def test_nothing_is_tried_while_a_tier_is_down(up: set[str]) -> None:
    assert not choose(Rules(), score=0.5, up=up, band=100).on_trial


@pytest.mark.parametrize("threshold", [0.0, 1.0, math.nextafter(1.0, 2.0)])
def test_a_threshold_that_no_evidence_can_cross_needs_no_trial(threshold: float) -> None:
    eligible = select_eligible(Rules(), BOTH)

    decision = decide(eligible, score=Score(0.5, Evidence.FEATURES), threshold=threshold, up=UP, band=100)

    assert (decision.reason, decision.on_trial) == (Reason.EASY if threshold >= 1 else Reason.HARD, False)


@pytest.mark.parametrize(
    ("score", "evidence", "target", "reason"),
    [
        (0.7, Evidence.ANSWER, CLOUD, "escalated"),
        (0.3, Evidence.ANSWER, EDGE, "checked"),
        (0.3, Evidence.FEATURES, EDGE, "easy"),
        (0.7, Evidence.FEATURES, CLOUD, "escalated"),
    ],
)
def test_the_verdict_follows_the_last_score(score: float, evidence: Evidence, target: Target, reason: str) -> None:
    verdict = choose(Rules(), band=100).judge(Score(score, evidence), 0.5)

    assert (verdict.target, verdict.reason, verdict.on_trial) == (target, reason, False)
    assert verdict.fallback is (EDGE if target is CLOUD else None)


def test_what_cannot_be_afforded_is_not_degraded() -> None:
    spared = choose(Rules(), score=0.9).fall_back(Reason.BUDGET)

    assert spared is not None
    assert (spared.target, spared.reason, spared.degraded) == (EDGE, Reason.BUDGET, False)
