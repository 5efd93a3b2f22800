"""Assembly: the only module that knows every other."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Litestar

from edge.engine.errors import EngineError
from edge.engine.settings import ConfigError
from edge.engine.template import ChatTemplate, TemplateError
from edge.serving import Drain, running
from router.admission import Admission, load_admission
from router.api.cache import cache_routes
from router.api.canaries import CANARIES
from router.api.chat import chat_routes
from router.api.embeddings import embedding_route
from router.api.exchange import Service
from router.api.failures import as_error_response
from router.api.lanes import LANES
from router.api.siblings import answer_sibling
from router.api.status import status_routes
from router.backends import Backend
from router.backends.openai import OpenAIBackend
from router.backends.triton import TritonBackend
from router.cache import Records
from router.cache.auditor import Auditor
from router.cache.embedding import EmbeddingCache
from router.cache.guard import Guard
from router.cache.guard.similarity import calibrated_similarity
from router.cache.keys import KeyMaker
from router.cache.plan import Plan
from router.cache.response import ResponseCache
from router.cache.semantic import EmbeddingModel, SemanticCache
from router.cache.similar import SimilarAnswers
from router.cache.statistics import Caches
from router.cache.tiered import TieredRecords
from router.calls import Caller
from router.canaries import Canaries
from router.choosing import Chooser
from router.config import AnyTarget, Config, EmbeddingUse, OpenAITarget, read_secret
from router.dispatch import Dispatcher
from router.embedder import Embedder
from router.embedding_calls import EmbeddingCaller
from router.fingerprint import Fingerprint
from router.flights import Flights
from router.health import Health
from router.hold import Holder
from router.lane_metrics import LaneCollector
from router.lanes import Lanes
from router.metering import Meter
from router.pipeline import Pipeline, answer_anew
from router.policy import Policy, make_policy
from router.processes.quota_table import SharedAccounts
from router.processes.serving import Membership
from router.processes.siblings import Siblings
from router.routing_metrics import PolicyCollector, RoutingMetrics
from router.scoring import Scorer, UnknownScorer
from router.scoring.artifact import has_check
from router.scoring.service import ScoringService
from router.scoring.stages import settle_use
from router.steering import Steering
from router.telemetry import Telemetry

if TYPE_CHECKING:
    from router.tracing import Tracing

_logger = logging.getLogger(__name__)
Job = Coroutine[Any, Any, None]


@dataclass(frozen=True)
class _Parts:
    """What is made of the configuration before anything is opened, so that a mistake in a file stops the start."""

    config: Config
    drain: Drain
    admission: Admission
    telemetry: Telemetry
    routing_metrics: RoutingMetrics
    records: TieredRecords
    vectors: EmbeddingCache | None
    embedder: Embedder | None
    scorer: Scorer
    semantic: SemanticCache | None
    policy: Policy
    canaries: Canaries
    lanes: Lanes
    steering: Steering
    backend_makers: Mapping[str, Callable[[], Backend]]
    make_tracing: "Callable[[], Tracing] | None"
    siblings: Siblings
    meter: Meter


def create_app(config: Config, drain: Drain, membership: Membership | None = None) -> Litestar:
    """The router as an ASGI application; nothing is opened before its lifespan starts.

    Args:
        config: The configuration, or one process's part of it.
        drain: The server's stop.
        membership: What this process shares with others of the same router, if there are.

    Raises:
        ConfigError: a file that the configuration names is wrong.
    """
    parts = _make_parts(config, drain, membership)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.service, jobs = await _open(parts, stack)
            async with running(drain, *jobs):
                yield

    return Litestar(
        [*chat_routes(), embedding_route(), *status_routes(), *cache_routes(), LANES.route(), CANARIES.route()],
        lifespan=[lifespan],
        exception_handlers={Exception: as_error_response},
        request_max_body_size=config.limits.body_bytes,
        openapi_config=None,
        logging_config=None,
    )


def _make_parts(config: Config, drain: Drain, membership: Membership | None) -> _Parts:
    admission = load_admission(config.keys_file)
    make_tracing = _tracing_maker(config)
    makers = {name: _backend_maker(name, target) for name, target in config.targets.items()}
    telemetry = Telemetry()
    routing_metrics = RoutingMetrics(telemetry)
    records = TieredRecords(config.cache.tiers, telemetry)
    vectors = EmbeddingCache(records, config.cache.embedding, telemetry) if config.cache.embedding.enabled else None
    embedder = _make_embedder(config, telemetry, vectors)
    scorer = _make_scorer(config, telemetry, embedder)
    semantic = _make_semantic(config, telemetry, embedder, records)
    policy = make_policy(config)
    canaries = Canaries(config.targets, telemetry)
    lanes = Lanes(config)
    steering = Steering(config.pressure, lanes.chat)
    telemetry.registry.register(LaneCollector(lanes.statistics, steering.statistics))
    telemetry.registry.register(PolicyCollector(policy))
    return _Parts(
        config, drain, admission, telemetry, routing_metrics, records, vectors, embedder, scorer, semantic, policy,
        canaries, lanes, steering, makers, make_tracing, Siblings(membership.place if membership else None),
        _make_meter(config, membership),
    )  # fmt: skip


async def _open(parts: _Parts, stack: AsyncExitStack) -> tuple[Service, list[Job]]:
    """The service, whose parts `stack` closes, and the jobs that it needs run."""
    config, telemetry, policy = parts.config, parts.telemetry, parts.policy
    stack.callback(policy.close)  # after the backends: their last calls are settled by then
    await stack.enter_async_context(parts.records)  # before all who write to it
    tracing = await _open_tracing(parts, stack)
    backends = await _open_backends(parts, tracing, stack)
    health = Health(backends, config.probe, telemetry, parts.canaries.idle)
    await health.check()
    jobs: list[Job] = [health.watch(), telemetry.log.run(), *await _open_scoring(parts, stack)]
    if parts.canaries.watched:
        jobs.append(parts.canaries.watch())
    metrics = parts.routing_metrics
    chooser = Chooser(config.chat_targets(), health, parts.scorer, policy, config.check, metrics, parts.steering)
    dispatcher = Dispatcher(health, chooser, policy, metrics)
    holder = await stack.enter_async_context(Holder(config.check, telemetry))
    caller = Caller(backends, parts.lanes.chat, holder)
    similar = await _open_similar(parts, partial(answer_anew, dispatcher, caller), stack)
    if similar is not None:
        jobs += [similar.cache.learn(), similar.auditor.run()]
    keys = KeyMaker(Fingerprint(config, parts.scorer, backends))
    responses = ResponseCache(config.cache.response, parts.records, keys, similar)
    embedding_caller = EmbeddingCaller(backends, parts.lanes.embedding, config.embedding_models(), parts.vectors)
    flights = await stack.enter_async_context(Flights())
    pipeline = Pipeline(
        responses, flights, dispatcher, caller, config.embedding_targets(), embedding_caller, health, policy,
        parts.canaries,
    )  # fmt: skip
    counted = [cache for cache in (responses, parts.semantic, parts.vectors) if cache is not None]
    caches = Caches(parts.records, counted, parts.semantic)
    service = Service(
        config=config,
        admission=parts.admission,
        chooser=chooser,
        pipeline=pipeline,
        health=health,
        scorer=parts.scorer,
        telemetry=telemetry,
        drain=parts.drain,
        meter=parts.meter,
        siblings=parts.siblings,
        lanes=parts.lanes,
        steering=parts.steering,
        canaries=parts.canaries,
        caches=caches,
        tracing=tracing,
    )
    await stack.enter_async_context(parts.siblings.answering(partial(answer_sibling, service)))
    if parts.siblings.others:
        jobs.append(parts.siblings.watch_parent())
    return service, jobs


def _make_meter(config: Config, membership: Membership | None) -> Meter:
    table = membership.quotas if membership else None
    return Meter(config.quotas, SharedAccounts(config.quotas, table) if table else None)


async def _open_tracing(parts: _Parts, stack: AsyncExitStack) -> "Tracing | None":
    if parts.make_tracing is None:
        return None
    tracing = await stack.enter_async_context(parts.make_tracing())
    parts.telemetry.registry.register(tracing)
    return tracing


async def _open_backends(parts: _Parts, tracing: "Tracing | None", stack: AsyncExitStack) -> dict[str, Backend]:
    backends: dict[str, Backend] = {}
    for name, make in parts.backend_makers.items():
        backend = tracing.watch(make(), parts.config.targets[name]) if tracing else make()
        backends[name] = await stack.enter_async_context(backend)
    return backends


async def _open_scoring(parts: _Parts, stack: AsyncExitStack) -> list[Job]:
    """Embedder and scorer, as far as there are; the scorer's job."""
    if parts.embedder is not None:
        await stack.enter_async_context(parts.embedder)
    if not isinstance(parts.scorer, ScoringService):
        return []
    await stack.enter_async_context(parts.scorer)
    return [parts.scorer.watch()]


async def _open_similar(
    parts: _Parts, answer: Callable[[Plan], Awaitable[str]], stack: AsyncExitStack
) -> SimilarAnswers | None:
    """Audits run while no request does; what they embed is an answer, to whatever data, and so stays on site."""
    semantic, embedder, drain = parts.semantic, parts.embedder, parts.drain
    if semantic is None or embedder is None:
        return None
    await stack.enter_async_context(semantic)
    embed = partial(embedder.embed, tenant="", on_site=True)
    auditor = Auditor(answer, embed, lambda: not drain.busy(), semantic.judge, parts.telemetry)
    return SimilarAnswers(semantic, embedder.embed, auditor)


def _make_embedder(config: Config, telemetry: Telemetry, cache: EmbeddingCache | None) -> Embedder | None:
    """None where there is no model, or nothing to embed for: an encoder takes some 50 MB."""
    scoring = config.scoring
    wanted = _refines(config) or config.cache.semantic.enabled
    return Embedder(scoring, telemetry, cache) if scoring.embedding is not None and wanted else None


def _refines(config: Config) -> bool:
    """Whether a score may rest on the full embedding; a later artifact without a check has none until a restart."""
    path = config.scoring.artifact_file()
    checked = config.check.enabled and path is not None and has_check(path)
    return settle_use(config.scoring.use_embedding, checked=checked) is not EmbeddingUse.NEVER


def _make_semantic(
    config: Config, telemetry: Telemetry, embedder: Embedder | None, records: Records
) -> SemanticCache | None:
    section = config.cache.semantic
    if embedder is None or not section.enabled:
        return None
    identity = embedder.identity
    similarity = section.similarity or calibrated_similarity(identity.name, judged=section.judge is not None)
    if similarity is None:
        raise ConfigError(f"cache.semantic.similarity: missing; none was calibrated for {identity.name}")
    model = EmbeddingModel(identity.label, embedder.embedding.encoder.width, similarity)
    return SemanticCache(section, _make_guard(section.judge), records, telemetry, model)


def _make_guard(judge: Path | None) -> Guard:
    if judge is None:
        _logger.warning("cache.semantic.judge: none is given; only rewordings that rules explain are semantic hits.")
        return Guard()
    try:
        return Guard.open(judge)
    except EngineError as exc:
        raise ConfigError(f"cache.semantic.judge: {exc}") from exc


def _make_scorer(config: Config, telemetry: Telemetry, embedder: Embedder | None) -> Scorer:
    if config.scoring.artifact_file() is None:
        return UnknownScorer()
    return ScoringService(config.scoring, telemetry, embedder, checked=config.check.enabled)


def _tracing_maker(config: Config) -> "Callable[[], Tracing] | None":
    """None without the section: then not even the packages are imported."""
    section = config.tracing
    if section is None:
        return None
    try:
        from router.tracing import Tracing  # noqa: PLC0415 - see above
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"tracing: needs the package {exc.name}; install hybrid-inference-router[tracing], or leave the section out"
        ) from exc
    return lambda: Tracing(section)


def _backend_maker(name: str, target: AnyTarget) -> Callable[[], Backend]:
    """Read the target's files now, while a mistake can still stop the start; connect when the server runs."""
    if isinstance(target, OpenAITarget):
        key = read_secret(target.key_file) if target.key_file else None
        return lambda: OpenAIBackend(name, target, key)
    template = _load_template(name, target.template) if target.template else None
    return lambda: TritonBackend(name, target, template)


def _load_template(name: str, path: Path) -> ChatTemplate:
    try:
        return ChatTemplate.load(path)
    except TemplateError as exc:
        raise ConfigError(f"targets.{name}.template: {exc}") from exc
