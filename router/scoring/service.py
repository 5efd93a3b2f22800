"""The scorer that serves: the synchronous models on threads of their own, and the artifact swapped while it runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Self

from threadpoolctl import threadpool_limits

from edge.engine.settings import ConfigError
from router.config import EmbeddingUse, Scoring
from router.decision import Evidence, Score
from router.embedder import Embedder, Embedding, Vector
from router.query import Prompt, Query
from router.scoring import EdgeAnswer, Explanation
from router.scoring.answer_check import AnswerChecker, CheckItem
from router.scoring.artifact import load_artifact, open_scoring
from router.scoring.stage_one import EmbeddedPrompt, Estimate, QueryScorer
from router.scoring.stages import needs_refining, settle_use
from router.telemetry import Telemetry
from router.threads import BatchThreads, Misses
from router.turns import TurnBatches

_PATIENCE_S: Final = 0.25
"""A score that comes later than this is not worth the wait: the evidence that is there decides."""
_CHEAP_BATCH: Final = 4
_NEAR_BATCH: Final = 8
_NEAR_CHARACTERS: Final = 512
"""Of a whole prompt: reading one so long takes 0.1 ms. With batches of 16 the loop was blocked for up to 3 ms."""
_FULL_BATCH: Final = 2
_CHEAP_WAITING: Final = 1024
_FULL_WAITING: Final = 64
_FULL_NICE: Final = 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What one artifact holds, ready to compute; `identity` begins its file's sha256, `use` is what it allows.

    `near` says that a short prompt's estimate is so small a work that the event loop does it itself.
    """

    query: QueryScorer
    answers: AnswerChecker | None
    identity: str
    use: EmbeddingUse
    near: bool = False


class _Rating(NamedTuple):
    """A score, and the vector that it rests on, if it does."""

    score: Score
    vector: Vector | None = None


def load_model(path: Path, config: Scoring, embedding: Embedding | None) -> Model:
    """Read an artifact and open the models in it.

    Raises:
        ConfigError: it is wrong, or not for this configuration; one line.
    """
    artifact = load_artifact(path)
    identity = sha256(path.read_bytes()).hexdigest()[:12]
    use = config.use_embedding
    if use is EmbeddingUse.ALWAYS and artifact.embedding is not None and embedding is None:
        raise ConfigError(f"{path}: scoring.embedding: missing; name the folder of {artifact.embedding.label}")
    query, answers = open_scoring(artifact, None if use is EmbeddingUse.NEVER else embedding, name=str(path))
    use = use if query.refines else EmbeddingUse.NEVER
    return Model(query, answers, identity, use, near=query.small)


class ScoringService:
    """`async with ScoringService(config, telemetry, embedder) as scorer`; see `router.scoring.Scorer`.

    Cheap estimates of long prompts and checks have a thread of their own, so that none waits behind a refined one. The
    embedder is entered and left by who made it.
    """

    def __init__(
        self,
        config: Scoring,
        telemetry: Telemetry,
        embedder: Embedder | None,
        load: Callable[[Path, Scoring, Embedding | None], Model] = load_model,
        *,
        checked: bool = False,
    ) -> None:
        """`checked` says that the edge's answers are, as far as the artifact can.

        Raises:
            ConfigError: the artifact is wrong, or there is none.
        """
        path = config.artifact_file()
        if path is None:
            raise ConfigError("scoring.artifact: missing; name an artifact, or leave out `scoring`")
        self._config = config
        self._path = path
        self._embedder = embedder
        self._load = load
        self._checked = checked
        self._stamp = _read_stamp(self._path)
        self._model = self._read_model()
        self._cheap = BatchThreads(
            "score", threads=1, most=_CHEAP_BATCH, waiting=_CHEAP_WAITING, patience_s=_PATIENCE_S
        )
        self._full = BatchThreads(
            "refine", threads=1, most=_FULL_BATCH, waiting=_FULL_WAITING, patience_s=_PATIENCE_S, nice=_FULL_NICE
        )
        self._near = TurnBatches(_NEAR_BATCH)
        self._misses = Misses("score", "Evidence that was not had in time", telemetry)
        self._metrics = _Metrics(telemetry)
        self._metrics.show_artifact(self._model.identity)

    async def __aenter__(self) -> Self:
        # a score's products are small: more threads in them cost more than they give, and starve the event loop
        self._one_thread = threadpool_limits(1, user_api="blas")
        await self._cheap.__aenter__()
        await self._full.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._full.__aexit__()
        await self._cheap.__aexit__()
        self._one_thread.restore_original_limits()

    @property
    def artifact(self) -> str | None:
        """Which artifact is in use."""
        return self._model.identity

    @property
    def checks_answers(self) -> bool:
        """Whether the artifact in use has a check."""
        return self._model.answers is not None

    async def score(self, query: Query, threshold: float) -> Score:
        """Stage one; without any evidence in time 0.5, as if nothing were known."""
        return (await self._rate(self._model, query, threshold)).score

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        """Stage two; without a check, or without its verdict in time, the score as it was."""
        answers, started = self._model.answers, time.perf_counter()
        if answers is None:
            return score
        checked = self._cheap.run(answers.check, CheckItem(prompt, score.value, answer))
        value = await self._misses.watch(checked)
        self._metrics.check_seconds.observe(time.perf_counter() - started)
        return score if value is None else Score(value, Evidence.ANSWER)

    async def explain(self, query: Query, threshold: float) -> Explanation:
        """`score` with its parts."""
        model = self._model
        score, vector = await self._rate(model, query, threshold)
        if score.evidence is Evidence.NONE:
            return Explanation(score, {})
        explain = partial(_explain_all, model.query, vector)
        threads = self._cheap if vector is None else self._full
        signals = await self._misses.watch(threads.run(explain, query.prompt))
        return Explanation(score, signals or {})

    async def watch(self) -> None:
        """Swap the artifact in whenever its file changes for a good one; a job that never ends."""
        while True:
            await asyncio.sleep(self._config.reload_s)
            stamp = await asyncio.to_thread(_read_stamp, self._path)
            if stamp != self._stamp:
                self._stamp = stamp  # a wrong file is refused once, not at every look
                await self._swap()

    async def _swap(self) -> None:
        try:
            model = await asyncio.to_thread(self._read_model)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the new one, the old one serves on
            self._metrics.refused.inc()
            _logger.error("Artifact refused, %s stays in use: %s", self._model.identity, exc)  # noqa: TRY400
            return
        _logger.info("Artifact %s replaces %s.", model.identity, self._model.identity)
        self._model = model  # a request that has begun keeps the one it began with
        self._metrics.show_artifact(model.identity)

    def _read_model(self) -> Model:
        model = self._load(self._path, self._config, self._embedder.embedding if self._embedder else None)
        return replace(model, use=settle_use(model.use, checked=self._checked and model.answers is not None))

    async def _rate(self, model: Model, query: Query, threshold: float) -> _Rating:
        started = time.perf_counter()
        rating = _Rating(Score(0.5, Evidence.NONE))
        estimate = await self._misses.watch(self._estimate(model, query.prompt))
        if estimate is not None:
            rating = _Rating(Score(estimate.probability, Evidence.FEATURES))
            if needs_refining(estimate, threshold, model.use):
                rating = await self._refine(model, query) or rating
        self._metrics.score_seconds[rating.score.evidence].observe(time.perf_counter() - started)
        return rating

    def _estimate(self, model: Model, prompt: Prompt) -> Awaitable[Estimate]:
        near = model.near and prompt.length <= _NEAR_CHARACTERS
        return (self._near if near else self._cheap).run(model.query.estimate, prompt)

    async def _refine(self, model: Model, query: Query) -> _Rating | None:
        vector = (
            await self._embedder.embed(query.prompt.text, query.tenant, on_site=query.on_site)
            if self._embedder
            else None
        )
        if vector is None:
            return None
        embedded = EmbeddedPrompt(query.prompt, vector)
        refined = await self._misses.watch(self._full.run(model.query.refine, embedded))
        return None if refined is None else _Rating(Score(refined.probability, Evidence.EMBEDDING), vector)


class _Metrics:
    """What operators see of scoring."""

    def __init__(self, telemetry: Telemetry) -> None:
        seconds = telemetry.seconds("score", "Stage one, by the best evidence that it got", "evidence")
        self.score_seconds = {evidence: seconds.labels(evidence) for evidence in Evidence}
        self.check_seconds = telemetry.seconds("check", "The answer check")
        self.refused = telemetry.counter("artifacts_refused", "Changed artifacts that were wrong")
        self._artifact = telemetry.gauge("artifact", "The artifact in use", "artifact")

    def show_artifact(self, identity: str) -> None:
        """One series, whose label is the artifact in use."""
        self._artifact.clear()
        self._artifact.labels(identity).set(1)


def _read_stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _explain_all(query: QueryScorer, vector: Vector | None, prompts: Sequence[Prompt]) -> list[Mapping[str, float]]:
    return [query.explain(prompt, vector) for prompt in prompts]
