"""The scorer that serves: the synchronous models on threads of their own, and the artifact swapped while it runs."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, Self, TypeVar

from threadpoolctl import threadpool_limits

from edge.engine.settings import ConfigError
from router.config import EmbeddingUse, Scoring
from router.decision import Evidence, Score
from router.query import Prompt
from router.scoring import EdgeAnswer, Explanation
from router.scoring.answer_check import AnswerChecker, CheckItem
from router.scoring.artifact import load_artifact, open_scoring
from router.scoring.stage_one import QueryScorer
from router.scoring.stages import needs_refining
from router.scoring.threads import BatchThreads, BusyError, LateError
from router.telemetry import Telemetry

_PATIENCE_S: Final = 0.25
"""A score that comes later than this is not worth the wait: the evidence that is there decides."""
_CHEAP_BATCH: Final = 4
_FULL_BATCH: Final = 2
_CHEAP_WAITING: Final = 1024
_FULL_WAITING: Final = 64
_FULL_NICE: Final = 10

_logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Miss(StrEnum):
    """Why evidence was not had."""

    BUSY = "busy"
    LATE = "late"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Model:
    """What one artifact holds, ready to compute; `identity` begins its file's sha256, `use` is what it allows."""

    query: QueryScorer
    answers: AnswerChecker | None
    identity: str
    use: EmbeddingUse


def load_model(path: Path, config: Scoring) -> Model:
    """Read an artifact and open the models in it.

    Raises:
        ConfigError: it is wrong, or not for this configuration; one line.
    """
    artifact = load_artifact(path)
    identity = sha256(path.read_bytes()).hexdigest()[:12]
    use, folder = config.use_embedding, config.embedding
    if use is EmbeddingUse.ALWAYS and artifact.embedding is not None and folder is None:
        raise ConfigError(f"{path}: scoring.embedding: missing; name the folder of {artifact.embedding.label}")
    if artifact.query.refined is None or folder is None:
        use = EmbeddingUse.NEVER
    query, answers = open_scoring(artifact, None if use is EmbeddingUse.NEVER else folder, name=str(path))
    return Model(query, answers, identity, use)


class ScoringService:
    """`async with ScoringService(config, telemetry) as scorer`; see `router.scoring.Scorer`.

    Cheap estimates and checks have a thread of their own, so that none waits behind a full embedding.
    """

    def __init__(
        self, config: Scoring, telemetry: Telemetry, load: Callable[[Path, Scoring], Model] = load_model
    ) -> None:
        """
        Raises:
            ConfigError: the artifact is wrong, or there is none.
        """
        path = config.artifact_file()
        if path is None:
            raise ConfigError("scoring.artifact: missing; name an artifact, or leave out `scoring`")
        self._config = config
        self._path = path
        self._load = load
        self._stamp = _read_stamp(self._path)
        self._model = self._load(self._path, config)
        self._cheap = BatchThreads(
            "score", threads=1, most=_CHEAP_BATCH, waiting=_CHEAP_WAITING, patience_s=_PATIENCE_S
        )
        self._full = BatchThreads(
            "embed",
            threads=config.threads,
            most=_FULL_BATCH,
            waiting=_FULL_WAITING,
            patience_s=_PATIENCE_S,
            nice=_FULL_NICE,
        )
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

    async def score(self, prompt: Prompt, threshold: float) -> Score:
        """Stage one; without any evidence in time 0.5, as if nothing were known."""
        return await self._score(self._model, prompt, threshold)

    async def check(self, prompt: Prompt, score: Score, answer: EdgeAnswer) -> Score:
        """Stage two; without a check, or without its verdict in time, the score as it was."""
        answers, started = self._model.answers, time.perf_counter()
        if answers is None:
            return score
        value = await self._run(self._cheap, answers.check, CheckItem(prompt, score.value, answer))
        self._metrics.check_seconds.observe(time.perf_counter() - started)
        return score if value is None else Score(value, Evidence.ANSWER)

    async def explain(self, prompt: Prompt, threshold: float) -> Explanation:
        """`score` with its parts."""
        model = self._model
        score = await self._score(model, prompt, threshold)
        if score.evidence is Evidence.NONE:
            return Explanation(score, {})
        refined = score.evidence is Evidence.EMBEDDING
        explain = partial(_explain_all, model.query, refined=refined)
        signals = await self._run(self._full if refined else self._cheap, explain, prompt)
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
            model = await asyncio.to_thread(self._load, self._path, self._config)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the new one, the old one serves on
            self._metrics.refused.inc()
            _logger.error("Artifact refused, %s stays in use: %s", self._model.identity, exc)  # noqa: TRY400
            return
        _logger.info("Artifact %s replaces %s.", model.identity, self._model.identity)
        self._model = model  # a request that has begun keeps the one it began with
        self._metrics.show_artifact(model.identity)

    async def _score(self, model: Model, prompt: Prompt, threshold: float) -> Score:
        started = time.perf_counter()
        score = Score(0.5, Evidence.NONE)
        estimate = await self._run(self._cheap, model.query.estimate, prompt)
        if estimate is not None:
            score = Score(estimate.probability, Evidence.FEATURES)
            if needs_refining(estimate, threshold, model.use):
                refined = await self._run(self._full, model.query.refine, prompt)
                score = score if refined is None else Score(refined.probability, Evidence.EMBEDDING)
        self._metrics.score_seconds[score.evidence].observe(time.perf_counter() - started)
        return score

    async def _run(
        self, threads: BatchThreads, work: Callable[[Sequence[Item]], Sequence[Result]], item: Item
    ) -> Result | None:
        """The result, or None when it cannot be had: a request is answered whatever becomes of its score."""
        try:
            return await threads.run(work, item)
        except BusyError:
            miss = Miss.BUSY
        except LateError:
            miss = Miss.LATE
        except Exception as exc:  # noqa: BLE001 - a broken model must not break the requests
            miss = Miss.FAILED
            # without the message, which may quote the prompt
            _logger.error("Scoring failed with %s in %s.", type(exc).__name__, _place(exc))  # noqa: TRY400
        self._metrics.misses[miss].inc()
        return None


class _Metrics:
    """What operators see of scoring."""

    def __init__(self, telemetry: Telemetry) -> None:
        seconds = telemetry.seconds("score", "Stage one, by the best evidence that it got", "evidence")
        misses = telemetry.counter("score_misses", "Evidence that was not had in time", "why")
        self.score_seconds = {evidence: seconds.labels(evidence) for evidence in Evidence}
        self.check_seconds = telemetry.seconds("check", "The answer check")
        self.misses = {miss: misses.labels(miss) for miss in Miss}
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


def _explain_all(query: QueryScorer, prompts: Sequence[Prompt], *, refined: bool) -> list[Mapping[str, float]]:
    return [query.explain(prompt, refined=refined) for prompt in prompts]


def _place(exc: BaseException) -> str:
    """File and line where it was raised."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
