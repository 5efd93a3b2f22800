"""Whose share a query is, who stands in for a canary that fails, and which answers of which version are kept."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.settings import ConfigError
from router.canaries import Canaries, falls_into, identify, read_share
from router.config import Canary, Config, OpenAITarget, load_config
from router.decision import Decision, Evidence, Rules, Score, Target, Tier, decide, select_eligible
from router.errors import UnknownModelError
from router.fingerprint import Fingerprint
from router.query import Conversation, EmbeddingQuery, Message, Parameters, Query, RawPrompts
from router.scoring import UnknownScorer
from router.telemetry import Telemetry
from tests.router.places import Place

pytestmark = pytest.mark.anyio

OLD, NEXT, CLOUD = Target("old", Tier.EDGE), Target("next", Tier.EDGE, canary_of="old"), Target("h100", Tier.CLOUD)
ALL = [NEXT, OLD, CLOUD]
DRAWN = Rules(canaries=frozenset({"next"}))
EASY, HARD = Score(0.1, Evidence.FEATURES), Score(0.9, Evidence.FEATURES)
FILE = """
targets:
  old: {backend: openai, tier: edge, url: http://127.0.0.1:1, chat_model: m}
  h100: {backend: openai, tier: cloud, url: http://127.0.0.1:2, chat_model: m}
  next:
    backend: openai
    tier: edge
    url: http://127.0.0.1:3
    chat_model: m
    canary: {of: old, share: 0.25, share_file: next.share}
"""


def ask(*turns: tuple[str, str], tenant: str = "shop") -> Query:
    return Query(Conversation(tuple(Message(*turn) for turn in turns)), Parameters(), tenant=tenant)


def choose(rules: Rules, score: Score = EASY, *, down: str = "", band: float | None = None) -> Decision:
    up = {target.name for target in ALL} - {down}
    return decide(select_eligible(rules, ALL), score=score, threshold=0.5, up=up, band=band)


@given(st.binary(max_size=64), st.floats(0, 1), st.floats(0, 1))
def test_who_is_of_a_share_is_of_every_larger_one(identity: bytes, one: float, other: float) -> None:
    small, large = sorted((one, other))

    assert falls_into(large, "next", identity) or not falls_into(small, "next", identity)


def test_a_share_is_the_share_of_conversations_that_it_says() -> None:
    of_share = [falls_into(0.05, "next", identify(ask(("user", f"Question {n}")))) for n in range(20_000)]

    assert 0.04 < sum(of_share) / len(of_share) < 0.06
    assert not any(falls_into(0.0, "next", bytes([n])) for n in range(256))
    assert all(falls_into(1.0, "next", bytes([n])) for n in range(256))


def test_a_conversation_stays_with_its_version_as_it_grows_and_tenants_are_drawn_apart() -> None:
    began = ask(("system", "Be brief."), ("user", "Hello"))
    grown = ask(("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", "What is 3 plus 4?"))

    assert identify(began) == identify(grown)
    assert identify(began) != identify(ask(("system", "Be brief."), ("user", "Bye")))
    assert identify(began) != identify(ask(("system", "Be brief."), ("user", "Hello"), tenant="ward"))
    assert identify(Query(RawPrompts(("a",)), Parameters())) != identify(Query(RawPrompts(("b",)), Parameters()))


def test_a_tenant_gets_all_of_its_vectors_from_one_model() -> None:
    one, other = EmbeddingQuery(("one",), tenant="shop"), EmbeddingQuery(("other",), tenant="shop")

    assert identify(one) == identify(other)


@pytest.mark.parametrize("model", ["auto", "edge", "old"])
def test_a_canary_is_asked_by_those_drawn_for_it_and_no_others(model: str) -> None:
    assert choose(Rules(model)).target is OLD
    assert choose(Rules(model, canaries=frozenset({"next"}))).target is NEXT
    assert choose(Rules("next")).target is NEXT


def test_a_hard_query_goes_to_the_cloud_whether_or_not_it_was_drawn() -> None:
    assert choose(DRAWN, HARD).target is CLOUD
    with pytest.raises(UnknownModelError):
        choose(Rules("nobody", canaries=frozenset({"next"})))


def test_the_stable_version_stands_in_for_a_canary_and_the_cloud_for_both() -> None:
    decision = choose(DRAWN)
    second = decision.fall_back()
    third = second.fall_back() if second else None

    assert second is not None
    assert third is not None
    assert (decision.target, second.target, third.target) == (NEXT, OLD, CLOUD)
    assert third.fall_back() is None
    assert choose(DRAWN, down="next").target is OLD
    assert not choose(DRAWN, down="next").degraded


def test_a_canary_on_trial_has_the_stable_version_and_the_cloud_behind_it() -> None:
    decision = choose(DRAWN, band=100)

    assert (decision.target, decision.fallback, decision.reserve, decision.escalation) == (NEXT, OLD, CLOUD, CLOUD)
    assert choose(Rules(), band=100) == Decision(OLD, decision.reason, 0.5, EASY, CLOUD, escalation=CLOUD)


def read(tmp_path: Path, text: str = FILE) -> Config:
    (tmp_path / "router.yaml").write_text(text)
    return load_config(tmp_path / "router.yaml")


def test_a_canary_comes_right_before_its_target(tmp_path: Path) -> None:
    assert [target.name for target in read(tmp_path).chat_targets()] == ["next", "old", "h100"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("of: old", "of: nobody"), "targets.next.canary.of"),
        (("of: old", "of: h100"), "targets.next.canary.of"),
        (("share: 0.25", "share: 25"), "share"),
        (("share_file: next.share", "share_file: nowhere/next.share"), "targets.next.canary.share_file"),
    ],
)
def test_a_canary_of_nothing_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, FILE.replace(*change))


async def test_a_share_file_counts_as_soon_as_it_changes_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    telemetry = Telemetry()
    canaries = Canaries(read(tmp_path).targets, telemetry)
    assert canaries.share("next") == 0.25

    async def wait_share(share: float) -> None:
        async with asyncio.timeout(5):
            while telemetry.registry.get_sample_value("hybrid_canary_share", {"target": "next"}) != share:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(canaries.watch())
        (tmp_path / "next.share").write_text("1\n")
        await wait_share(1.0)
        (tmp_path / "next.share").write_text("many\n")
        await asyncio.sleep(1.2)
        assert canaries.share("next") == 1.0
        (tmp_path / "next.share").write_text("0\n")
        await wait_share(0.0)
        watching.cancel()


@pytest.mark.parametrize("text", ["", "many", "1.5", "-1", "nan"])
def test_what_is_no_share_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "share").write_text(text)

    with pytest.raises(ConfigError, match="write a number from 0 to 1"):
        read_share(Canary(of="old", share_file=tmp_path / "share"))


def test_a_canary_changes_what_is_stored_for_those_drawn_alone(tmp_path: Path) -> None:
    config = read(tmp_path)
    old, fresh, cloud = Place([]), Place([]), Place([])
    fingerprint = Fingerprint(config, UnknownScorer(), {"old": old, "next": fresh, "h100": cloud})
    before, drawn_before = fingerprint(Rules()), fingerprint(DRAWN)

    fresh.version = "2"

    assert fingerprint(Rules()) == before
    assert fingerprint(Rules("edge")) == [*before[:2], old.version]
    assert fingerprint(DRAWN) != drawn_before
    other = read(tmp_path, FILE.replace("share: 0.25", "share: 0.5"))
    assert Fingerprint(other, UnknownScorer(), {"old": old, "next": fresh, "h100": cloud})(Rules()) == before


async def test_without_a_canary_nothing_is_drawn() -> None:
    section = OpenAITarget(tier=Tier.EDGE, url="http://127.0.0.1:1", chat_model="m")
    rules = Rules()

    assert Canaries({"old": section}, Telemetry()).draw(ask(("user", "Hello")), rules, set) is rules
