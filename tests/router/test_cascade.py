"""The edge's answer on trial: kept or replaced, whole and streamed, and never a mixture."""

import asyncio
import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.config import Check
from router.decision import Decision, Evidence, Reason, Rules, Score, Tier
from router.errors import BackendError, BudgetError, OverloadedError, RefusedError, RouterError, UnavailableError
from router.pipeline import StreamedAnswer
from router.query import (
    Finish,
    Parameters,
    Query,
    RawPrompts,
    Usage,
)
from router.scoring import EdgeAnswer
from tests.router.places import (
    CLOUD,
    EDGE,
    QUERY,
    Bench,
    Judge,
    Place,
    bench,
    easy,
    read,
    strong,
)

pytestmark = pytest.mark.anyio


async def test_an_answer_that_is_good_enough_is_kept() -> None:
    judge = Judge(last=0.2)
    async with bench(easy(), strong(), judge) as made:
        answer = await made.answer()

        assert answer.completion.choices[0].text == "e1 e2 e3"
        assert (answer.origin.decision.reason, answer.origin.decision.score) == (
            Reason.CHECKED,
            Score(0.2, Evidence.ANSWER),
        )
        assert made.policy.seen == [(0.2, Tier.EDGE)]
        assert made.count("trials_total", reason="checked") == 1
    assert judge.shown[0].finish is Finish.STOP
    assert len(judge.shown[0].logprobs) == 3
    assert len(judge.shown[0].logprobs[0].top) == 5


async def test_a_doubtful_answer_is_replaced_and_the_client_pays_for_the_clouds_only() -> None:
    async with bench(easy(), strong(), Judge(last=0.9)) as made:
        answer = await made.answer()

        assert answer.completion.choices[0].text == "c1 c2"
        assert answer.completion.usage == Usage(3, 2)
        assert (answer.origin.decision.reason, answer.origin.decision.degraded) == (Reason.ESCALATED, False)
        assert made.policy.seen == [(0.9, Tier.CLOUD)]
        assert made.policy.paid() == pytest.approx(5e-6)
        assert made.count("tokens_total", direction="out", tier="edge", target="shop") == 3


@pytest.mark.parametrize("top", [None, 0, 2])
async def test_the_client_gets_the_log_probabilities_that_it_asked_for(top: int | None) -> None:
    parameters = replace(QUERY.parameters, logprobs=top is not None, top_logprobs=top or 0)
    async with bench(easy(), strong(), Judge(last=0.2)) as made:
        query = replace(QUERY, parameters=parameters)
        whole = (await made.answer(query)).completion.choices[0].logprobs
        streamed = await made.stream(query)
        pieces = [place async for piece in streamed.pieces.for_client() for place in piece.logprobs]

    for places in (whole, pieces):
        assert len(places) == (0 if top is None else 3)
        assert all(len(place.top) == top for place in places)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_edge_without_log_probabilities_is_judged_without(streamed: bool) -> None:
    edge, judge = dataclasses.replace(easy(), refuses_logprobs=True), Judge(last=0.2)
    async with bench(edge, strong(), judge) as made:
        for _ in range(2):
            if streamed:
                assert await read(await made.stream()) == "e1 e2 e3"
            else:
                assert (await made.answer()).origin.decision.reason is Reason.CHECKED

    assert [query.parameters.logprobs for query in edge.asked] == [True, False, False]
    assert judge.shown[0] == EdgeAnswer("e1 e2 e3", (), Finish.STOP)


@pytest.mark.parametrize(
    "query",
    [
        replace(QUERY, parameters=Parameters(n=2)),
        replace(QUERY, prompt=RawPrompts(("one", "two"))),
    ],
)
async def test_several_answers_are_not_judged(query: Query) -> None:
    judge = Judge(last=0.9)
    async with bench(easy(), strong(), judge) as made:
        assert (await made.answer(query)).origin.decision.reason is Reason.EASY
    assert not judge.shown


@pytest.mark.parametrize(
    ("rules", "check", "reason"),
    [
        (Rules(check=False), Check(), "easy"),
        (Rules(), Check(enabled=False), "easy"),
        (Rules(check=True), Check(enabled=False), "escalated"),
        (Rules(), Check(band=0.1), "easy"),
        (Rules(threshold=0.3), Check(band=0.1), "hard"),
        (Rules(threshold=1.0), Check(), "easy"),
        (Rules(threshold=1.0, check=True), Check(), "checked"),
    ],
)
async def test_what_configuration_and_request_say_of_the_check(rules: Rules, check: Check, reason: str) -> None:
    async with bench(easy(), strong(), Judge(first=0.4, last=0.9), check=check) as made:
        assert (await made.answer(rules=rules)).origin.decision.reason == reason
        assert len(made.policy.seen) == (rules.threshold is None)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failing_edge_is_the_clouds_turn_without_a_verdict(streamed: bool) -> None:
    judge = Judge(last=0.1)
    async with bench(dataclasses.replace(easy(), fails_at=2), strong(), judge) as made:
        if streamed:
            begun = await made.stream()
            decision, text = begun.origin.decision, await read(begun)
        else:
            answer = await made.answer()
            decision, text = answer.origin.decision, answer.completion.choices[0].text

        assert text == "c1 c2"
        assert (decision.target, decision.reason, decision.degraded) == (CLOUD, Reason.FALLBACK, True)
        assert made.policy.seen == [(0.4, Tier.CLOUD)]
    assert not judge.shown


async def test_when_the_cloud_fails_the_edges_answer_is_there_already() -> None:
    edge = easy()
    async with bench(edge, dataclasses.replace(strong(), fails_at=0), Judge(last=0.9)) as made:
        answer = await made.answer()
        streamed = await made.stream()

        assert answer.completion.choices[0].text == await read(streamed) == "e1 e2 e3"
        for decision in (answer.origin.decision, streamed.origin.decision):
            assert (decision.target, decision.reason, decision.degraded) == (EDGE, Reason.FALLBACK, True)
    assert len(edge.asked) == 2


async def test_when_the_cloud_fails_a_long_stream_begins_again_at_the_edge() -> None:
    edge = Place([f"e{n} " for n in range(40)])
    async with bench(edge, dataclasses.replace(strong(), fails_at=0), Judge(last=0.9)) as made:
        streamed = await made.stream()

        assert await read(streamed) == "".join(edge.pieces)
        assert streamed.origin.decision.degraded
    assert len(edge.asked) == 2


@pytest.mark.parametrize("pieces", [3, 40])
async def test_without_money_the_edges_answer_stands(pieces: int) -> None:
    edge = Place([f"e{n} " for n in range(pieces)])
    async with bench(edge, strong(), Judge(last=0.9), per_day=1e-7) as made:
        streamed = await made.stream()

        assert await read(streamed) == "".join(edge.pieces)
        assert (streamed.origin.decision.reason, streamed.origin.decision.degraded) == (Reason.BUDGET, False)
        assert made.policy.seen == [(0.9, Tier.EDGE)]
        with pytest.raises(BudgetError) as caught:
            await made.answer(rules=Rules(wish=Tier.CLOUD))
        spared = await made.answer(rules=Rules(threshold=0.0))
        assert (spared.origin.decision.target, spared.origin.decision.reason) == (EDGE, Reason.BUDGET)
    assert len(edge.asked) == 2
    assert (caught.value.status, caught.value.code) == (429, "budget_exhausted")


@pytest.mark.parametrize(
    ("failure", "fails_at", "paid"),
    [(UnavailableError, 0, False), (OverloadedError, 0, False), (RefusedError, 0, False), (BackendError, 1, True)],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_target_that_took_no_work_is_not_paid(
    failure: type[RouterError], fails_at: int, paid: bool, streamed: bool
) -> None:
    async def receive(made: Bench) -> str:
        return await read(await made.stream(rules=Rules(wish=Tier.CLOUD)))

    cloud = dataclasses.replace(strong(), fails_at=fails_at, failure=failure)
    async with bench(easy(), cloud, Judge()) as made:
        with pytest.raises(failure):
            await (receive(made) if streamed else made.answer(rules=Rules(wish=Tier.CLOUD)))

        assert (made.policy.paid() > 0) is paid


async def test_a_check_with_nothing_to_say_leaves_stage_one_to_decide() -> None:
    async with bench(easy(), strong(), Judge(first=0.4, last=None)) as made:
        assert (await made.answer()).origin.decision.reason is Reason.EASY
    async with bench(easy(), strong(), Judge(first=0.6, last=None)) as made:
        assert (await made.answer()).origin.decision.target is CLOUD


@pytest.mark.parametrize(
    ("delay_s", "check", "held"),
    [
        (0.0, Check(hold_tokens=4, hold_ms=5000), 4),
        (0.03, Check(hold_tokens=1000, hold_ms=100), 4),
        (0.03, Check(hold_tokens=1, hold_ms=100), 1),
    ],
)
async def test_a_long_stream_is_held_back_for_its_window_only(delay_s: float, check: Check, held: int) -> None:
    edge, judge = Place([f"e{n} " for n in range(30)], [delay_s] * 30), Judge(last=0.1)
    async with bench(edge, strong(), judge, check=check) as made:
        begun = time.monotonic()
        streamed = await made.stream()
        first_s = time.monotonic() - begun

        assert await read(streamed) == "".join(edge.pieces)
    assert len(judge.shown[0].logprobs) == pytest.approx(held, abs=1)
    assert judge.shown[0].finish is None
    assert first_s < delay_s + check.hold_ms / 1e3 + 0.1


async def test_an_edge_that_stalls_during_the_hold_is_left_at_once() -> None:
    edge = Place(["e "] * 9, [0.0, 0.0, 60.0])
    async with bench(edge, strong(), Judge(last=0.9), check=Check(hold_ms=20)) as made:
        async with asyncio.timeout(1):
            assert await read(await made.stream()) == "c1 c2"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await made.stream()

        assert edge.running == 0


@pytest.mark.parametrize(
    ("verdict", "after_s"), [(0.1, 0.0), (0.1, 0.01), (0.1, 0.03), (0.9, 0.03), (0.9, 0.06), (0.9, 0.08)]
)
async def test_a_hang_up_during_the_hold_stops_everything(verdict: float, after_s: float) -> None:
    edge = Place(["e "] * 100, [0.005] * 100)
    cloud = Place(["c "] * 100, [0.5])
    check = Check(hold_tokens=4)
    async with bench(edge, cloud, Judge(last=verdict, delay_s=0.02), check=check) as made:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after_s):
                await made.stream()

        assert edge.running == cloud.running == 0


LENGTHS = st.integers(1, 12)
DELAYS = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.004]), max_size=8)
FAILURES = st.none() | st.integers(0, 12)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(LENGTHS, DELAYS, FAILURES, st.booleans()),
    st.tuples(LENGTHS, DELAYS, FAILURES),
    st.sampled_from([None, 0.1, 0.9]),
    st.sampled_from([0.0, 0.002]),
    st.builds(Check, hold_tokens=st.integers(1, 14), hold_ms=st.sampled_from([0.01, 1.0, 3.0, 50.0])),
    st.none() | st.floats(0, 0.03),
)
def test_what_a_client_gets_is_one_models_answer(
    edge_script: tuple[int, list[float], int | None, bool],
    cloud_script: tuple[int, list[float], int | None],
    last: float | None,
    check_s: float,
    check: Check,
    leaves_s: float | None,
) -> None:
    edge = Place([f"e{n} " for n in range(edge_script[0])], *edge_script[1:])
    cloud = Place([f"c{n} " for n in range(cloud_script[0])], *cloud_script[1:])

    got, decision = asyncio.run(_receive(edge, cloud, Judge(last=last, delay_s=check_s), check, leaves_s))

    if decision is None:
        assert got == ""
        return
    spoken = edge if decision.target is EDGE else cloud
    whole = "".join(spoken.pieces)
    broke = spoken.fails_at is not None and spoken.fails_at <= len(spoken.pieces)
    assert got == whole or ((broke or leaves_s is not None) and whole.startswith(got))
    assert decision.target is EDGE or decision.reason in {Reason.ESCALATED, Reason.FALLBACK}
    assert last != 0.1 or decision.reason is not Reason.ESCALATED


async def _receive(
    edge: Place, cloud: Place, judge: Judge, check: Check, leaves_s: float | None
) -> tuple[str, Decision | None]:
    """What a client read until the end, an error, or its own leave; begun in one task and read in another."""
    received: list[str] = []
    decision: Decision | None = None
    async with bench(edge, cloud, judge, check=check) as made:
        streamed: StreamedAnswer | None = None

        async def begin() -> None:
            nonlocal streamed
            streamed = await made.stream()

        try:
            async with asyncio.timeout(leaves_s):
                async with asyncio.TaskGroup() as group:
                    group.create_task(begin())
                assert streamed is not None
                decision = streamed.origin.decision
                async for piece in streamed.pieces.for_client():
                    received.append(piece.text)  # noqa: PERF401 - what came before an error counts
        except* (TimeoutError, RouterError):
            pass
        finally:
            if streamed is not None:
                await streamed.pieces.aclose()
    return "".join(received), decision
