"""The scorer that serves: scores on threads, an artifact that changes while it runs, and models that fail or dawdle."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engine.encoder import Encoder, Tokens, Vectors
from edge.engine.session import SessionConfig
from edge.engine.settings import ConfigError
from loadtests.site import STORE
from router.config import EmbeddingUse, Scoring
from router.decision import Evidence, Score
from router.embedder import Embedder, Embedding, Vector, open_embedding
from router.query import Parameters, Prompt, Query
from router.scoring.artifact import load_artifact, open_scoring
from router.scoring.service import Model, ScoringService, load_model
from router.scoring.stage_one import EmbeddedPrompt, Estimate, QueryScorer
from router.scoring.stages import score_prompts
from router.telemetry import Telemetry
from tests.router.artifacts import answer, ask, write_artifact

pytestmark = pytest.mark.anyio
EMBEDDING = STORE / "all-minilm-l6-v2-fast" / "1"
PROMPTS = [ask(f"what is {3**n} plus {7 * 10 ** (n % 6)}?") for n in range(12)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without an embedding."""
    path = tmp_path_factory.mktemp("plain") / "score.json"
    write_artifact(path)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on other labels."""
    path = tmp_path_factory.mktemp("other") / "score.json"
    write_artifact(path, seed=1)
    return path


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the real embedding model."""
    path = tmp_path_factory.mktemp("refined") / "score.json"
    write_artifact(path, embedding=EMBEDDING)
    return path


@asynccontextmanager
async def serving(
    config: Scoring,
    telemetry: Telemetry | None = None,
    *,
    load: Callable[[Path, Scoring, Embedding | None], Model] = load_model,
    open_encoder: Callable[[Path], Embedding] = open_embedding,
    checked: bool = False,
) -> AsyncIterator[ScoringService]:
    """A scorer with an embedder of its own, if it is to have one, and no cache."""
    telemetry = telemetry or Telemetry()
    async with AsyncExitStack() as stack:
        embedder = None
        if config.embedding is not None:
            embedder = await stack.enter_async_context(Embedder(config, telemetry, None, open_encoder))
        yield await stack.enter_async_context(ScoringService(config, telemetry, embedder, load, checked=checked))


def query(prompt: Prompt) -> Query:
    """As a client asks."""
    return Query(prompt, Parameters(), tenant="shop")


def counted(telemetry: Telemetry, name: str, **labels: str) -> float:
    """A metric's value."""
    return telemetry.registry.get_sample_value(f"hybrid_{name}", labels) or 0.0


@pytest.mark.parametrize("use", EmbeddingUse)
async def test_concurrent_requests_get_what_a_file_of_prompts_gets(refined: Path, use: EmbeddingUse) -> None:
    config = Scoring(artifact=refined, embedding=EMBEDDING, use_embedding=use)
    embedding = open_embedding(EMBEDDING)
    scorer, _ = open_scoring(load_artifact(refined), embedding)
    threshold = scorer.estimate(PROMPTS[:1])[0].probability  # so that refining the first can cross it
    expected = score_prompts(scorer, embedding.encoder, PROMPTS, threshold=threshold, use=use)

    async with serving(config) as service:
        scores = await asyncio.gather(*(service.score(query(prompt), threshold) for prompt in PROMPTS))

    assert [score.evidence for score in scores] == [score.evidence for score in expected]
    assert [score.value for score in scores] == pytest.approx([score.value for score in expected], abs=1e-4)
    refined_share = sum(score.evidence is Evidence.EMBEDDING for score in scores) / len(scores)
    assert {"never": refined_share == 0, "auto": refined_share > 0, "always": refined_share == 1}[use]


@pytest.mark.parametrize(
    ("use", "checked", "evidence"),
    [
        (EmbeddingUse.AUTO, False, Evidence.EMBEDDING),
        (EmbeddingUse.AUTO, True, Evidence.FEATURES),
        (EmbeddingUse.ALWAYS, True, Evidence.EMBEDDING),
    ],
)
async def test_near_the_threshold_the_check_says_more_than_the_embedding(
    refined: Path, use: EmbeddingUse, checked: bool, evidence: Evidence
) -> None:
    config = Scoring(artifact=refined, embedding=EMBEDDING, use_embedding=use)
    scorer, check = open_scoring(load_artifact(refined), open_embedding(EMBEDDING))
    assert check is not None
    threshold = scorer.estimate(PROMPTS[:1])[0].probability
    async with serving(config, checked=checked) as service:
        assert (await service.score(query(PROMPTS[0]), threshold)).evidence is evidence


async def test_an_artifact_without_an_embedding_claims_none(plain: Path) -> None:
    config = Scoring(artifact=plain, embedding=EMBEDDING, use_embedding=EmbeddingUse.ALWAYS)
    async with serving(config) as service:
        assert (await service.score(query(PROMPTS[0]), 0.5)).evidence is Evidence.FEATURES


async def test_the_check_moves_a_score_and_a_score_is_explained(plain: Path) -> None:
    async with serving(Scoring(artifact=plain)) as service:
        score = await service.score(query(PROMPTS[0]), 0.5)
        sure = await service.check(PROMPTS[0], score, answer("8", -0.05))
        unsure = await service.check(PROMPTS[0], score, answer("8", -2.0))
        explanation = await service.explain(query(PROMPTS[0]), 0.5)

        assert service.checks_answers
    assert sure.evidence is unsure.evidence is Evidence.ANSWER
    assert sure.value < 0.5 < unsure.value
    assert explanation.score == score
    logit = np.log(score.value / (1 - score.value))
    assert sum(explanation.signals.values()) == pytest.approx(logit, abs=1e-3)


@dataclass(frozen=True)
class Broken:
    """A query model of which each step can fail or dawdle, around a real one."""

    real: QueryScorer
    fails: bool = False
    estimate_s: float = 0.0
    refine_s: float = 0.0
    refine_fails: bool = False

    def estimate(self, prompts: Sequence[Prompt]) -> list[Estimate]:
        time.sleep(self.estimate_s)
        if self.fails:
            raise RuntimeError("CANARY: " + prompts[0].text)
        return [Estimate(estimate.probability, 9.0) for estimate in self.real.estimate(prompts)]

    def refine(self, embedded: Sequence[EmbeddedPrompt]) -> list[Estimate]:
        time.sleep(self.refine_s)
        if self.refine_fails:
            raise MemoryError
        return self.real.refine(embedded)

    def explain(self, prompt: Prompt, vector: Vector | None) -> Mapping[str, float]:
        return self.real.explain(prompt, vector)


class BrokenEncoder(Encoder):
    """The real encoder, that can fail or dawdle."""

    def __init__(self, folder: Path, delay_s: float, *, fails: bool) -> None:
        super().__init__(folder, SessionConfig(threads=1))
        self.delay_s, self.fails = delay_s, fails

    def embed(self, rows: Sequence[Tokens]) -> Vectors:
        time.sleep(self.delay_s)
        if self.fails:
            raise MemoryError
        return super().embed(rows)


@asynccontextmanager
async def serving_broken(
    artifact: Path, telemetry: Telemetry, *, embed_s: float = 0.0, embed_fails: bool = False, **how: Any
) -> AsyncIterator[ScoringService]:
    def load(path: Path, config: Scoring, embedding: Embedding | None) -> Model:
        model = load_model(path, config, embedding)
        broken = Broken(model.query, **how)
        return Model(broken, model.answers, model.identity, EmbeddingUse.AUTO)  # type: ignore[arg-type] # looks like a QueryScorer

    def open_encoder(folder: Path) -> Embedding:
        return Embedding(open_embedding(folder).identity, BrokenEncoder(folder, embed_s, fails=embed_fails))

    config = Scoring(artifact=artifact, embedding=EMBEDDING)
    async with serving(config, telemetry, load=load, open_encoder=open_encoder) as service:
        yield service


async def test_a_failing_model_costs_the_score_and_nothing_else(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    async with serving_broken(plain, telemetry, fails=True) as service:
        assert await service.score(query(PROMPTS[0]), 0.5) == Score(0.5, Evidence.NONE)
        assert (await service.explain(query(PROMPTS[0]), 0.5)).signals == {}

    assert counted(telemetry, "score_misses_total", why="failed") == 2
    assert "RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize(
    ("how", "metric", "why"),
    [
        ({"embed_fails": True}, "embedder", "failed"),
        ({"embed_s": 0.6}, "embedder", "late"),
        ({"refine_fails": True}, "score", "failed"),
        ({"refine_s": 0.6}, "score", "late"),
    ],
)
async def test_without_the_full_embedding_the_cheap_estimate_stands(
    refined: Path, how: dict[str, Any], metric: str, why: str
) -> None:
    telemetry = Telemetry()
    async with serving_broken(refined, telemetry, **how) as service:
        begun = time.monotonic()
        score = await service.score(query(PROMPTS[0]), 0.5)

        assert score.evidence is Evidence.FEATURES
        assert time.monotonic() - begun < 0.5
    assert counted(telemetry, f"{metric}_misses_total", why=why) == 1


async def test_an_overloaded_scorer_turns_requests_away_without_a_score(plain: Path) -> None:
    telemetry = Telemetry()
    async with serving_broken(plain, telemetry, estimate_s=0.05) as service:
        scores = await asyncio.gather(*(service.score(query(PROMPTS[n % 12]), 1.0) for n in range(3000)))

    evidence = [score.evidence for score in scores]
    assert counted(telemetry, "score_misses_total", why="busy") == 3000 - 1024
    assert Evidence.FEATURES in evidence
    assert all(score.value == 0.5 for score in scores if score.evidence is Evidence.NONE)


@pytest.mark.parametrize("slow", ["embed_s", "refine_s"])
async def test_cheap_estimates_do_not_wait_behind_refined_ones(refined: Path, slow: str) -> None:
    how: dict[str, Any] = {slow: 0.2}
    async with serving_broken(refined, Telemetry(), **how) as service, asyncio.TaskGroup() as group:
        group.create_task(service.score(query(PROMPTS[0]), 0.5))
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        cheap = await service.score(query(PROMPTS[1]), 1.0)  # nothing can cross a threshold of 1

        assert time.monotonic() - begun < 0.1
    assert cheap.evidence is Evidence.FEATURES


async def wait_until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Poll, since nothing tells when a job has looked."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_changed_artifact_takes_over_while_requests_run(tmp_path: Path, plain: Path, other: Path) -> None:
    path = copy(plain, tmp_path)
    telemetry = Telemetry()
    async with (
        serving(Scoring(artifact=path, reload_s=0.02), telemetry) as service,
        asyncio.TaskGroup() as group,
    ):
        first, before = service.artifact, await service.score(query(PROMPTS[0]), 0.5)
        watching = group.create_task(service.watch())
        copy(other, tmp_path, "new.json").replace(path)
        seen = [before]
        while service.artifact == first:
            seen += await asyncio.gather(*(service.score(query(PROMPTS[0]), 0.5) for _ in range(8)))
        after = await service.score(query(PROMPTS[0]), 0.5)
        watching.cancel()

    assert abs(after.value - before.value) > 1e-3
    assert all(min(abs(score.value - one.value) for one in (before, after)) < 1e-4 for score in seen)
    assert counted(telemetry, "artifact", artifact=service.artifact or "") == 1
    assert telemetry.registry.get_sample_value("hybrid_artifact", {"artifact": first or ""}) is None


def not_a_number(good: bytes) -> bytes:
    """The first array of the file, with a NaN in it."""
    begin = good.index(b'"means":')
    begin = good.index(b'"values":"', begin) + len(b'"values":"')
    end = good.index(b'"', begin)
    array = np.frombuffer(base64.b64decode(good[begin:end]), "<f4").copy()
    array[0] = np.nan
    return good[:begin] + base64.b64encode(array.tobytes()) + good[end:]


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda good: good[: len(good) // 2],
    "empty": lambda good: b"",
    "other version": lambda good: good.replace(b"hybrid-score-2", b"hybrid-score-1"),
    "other embedding": lambda good: good.replace(b'"embedding":{"name":"all-minilm', b'"embedding":{"name":"mpnet'),
    "NaN": not_a_number,
}


def copy(artifact: Path, folder: Path, name: str = "score.json") -> Path:
    """One of a test's own."""
    path = folder / name
    path.write_bytes(artifact.read_bytes())
    return path


def spoil(path: Path, how: str) -> None:
    """Damage an artifact."""
    good = path.read_bytes()
    bad = SPOILED[how](good)
    assert bad != good
    path.write_bytes(bad)


@pytest.mark.parametrize("how", SPOILED)
async def test_a_wrong_artifact_is_refused_and_the_old_one_stays(
    tmp_path: Path, refined: Path, other: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = copy(refined, tmp_path)
    telemetry = Telemetry()
    config = Scoring(artifact=path, embedding=EMBEDDING, reload_s=0.02)
    async with serving(config, telemetry) as service, asyncio.TaskGroup() as group:
        identity, before = service.artifact, await service.score(query(PROMPTS[0]), 0.5)
        watching = group.create_task(service.watch())
        spoil(path, how)
        await wait_until(lambda: counted(telemetry, "artifacts_refused_total") > 0)
        await asyncio.sleep(0.1)

        assert (service.artifact, await service.score(query(PROMPTS[0]), 0.5)) == (identity, before)
        assert counted(telemetry, "artifacts_refused_total") == 1
        refusals = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(refusals) == 1
        assert str(path) in refusals[0]
        assert "\n" not in refusals[0]

        copy(other, tmp_path)
        await wait_until(lambda: service.artifact != identity)
        watching.cancel()


@pytest.mark.parametrize("how", SPOILED)
def test_a_wrong_artifact_stops_the_start(tmp_path: Path, refined: Path, how: str) -> None:
    path = copy(refined, tmp_path)
    spoil(path, how)
    embedder = Embedder(Scoring(embedding=EMBEDDING), Telemetry(), None)

    with pytest.raises(ConfigError, match=r"score\.json: ") as caught:
        ScoringService(Scoring(artifact=path), Telemetry(), embedder)

    assert "\n" not in str(caught.value)


async def test_an_artifact_that_is_gone_is_refused_too(tmp_path: Path, plain: Path) -> None:
    path = copy(plain, tmp_path)
    telemetry = Telemetry()
    async with (
        serving(Scoring(artifact=path, reload_s=0.02), telemetry) as service,
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(service.watch())
        path.unlink()
        await wait_until(lambda: counted(telemetry, "artifacts_refused_total") == 1)

        assert (await service.score(query(PROMPTS[0]), 0.5)).evidence is Evidence.FEATURES
        watching.cancel()


def test_the_full_embedding_needs_its_folder(refined: Path) -> None:
    with pytest.raises(ConfigError, match=r"scoring\.embedding: missing"):
        ScoringService(Scoring(artifact=refined, use_embedding=EmbeddingUse.ALWAYS), Telemetry(), None)
