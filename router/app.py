"""Assembly: the only module that knows every other."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from litestar import Litestar

from edge.engine.errors import EngineError
from edge.engine.settings import ConfigError
from edge.engine.template import ChatTemplate, TemplateError
from edge.serving import Drain, running
from router.admission import load_admission
from router.api.cache import cache_routes
from router.api.canaries import canary_routes
from router.api.chat import chat_routes
from router.api.embeddings import embedding_routes
from router.api.exchange import Service
from router.api.failures import as_error_response
from router.api.lanes import lane_routes
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
from router.policy import make_policy
from router.routing_metrics import PolicyCollector, RoutingMetrics
from router.scoring import Scorer, UnknownScorer
from router.scoring.service import ScoringService
from router.steering import Steering
from router.telemetry import Telemetry

if TYPE_CHECKING:
    from router.tracing import Tracing

_logger = logging.getLogger(__name__)


def create_app(config: Config, drain: Drain) -> Litestar:
    """The router as an ASGI application; nothing is opened before its lifespan starts.

    Raises:
        ConfigError: a file that the configuration names is wrong.
    """
    admission = load_admission(config.keys_file)
    make_tracing = _tracing_maker(config)
    makers = {name: _backend_maker(name, target) for name, target in config.targets.items()}
    telemetry = Telemetry()
    metrics = RoutingMetrics(telemetry)
    records = TieredRecords(config.cache.tiers, telemetry)
    vectors = EmbeddingCache(records, config.cache.embedding, telemetry) if config.cache.embedding.enabled else None
    embedder = _make_embedder(config, telemetry, vectors)
    scorer = _make_scorer(config, telemetry, embedder)
    semantic = _make_semantic(config, telemetry, embedder, records)
    policy = make_policy(config)
    meter = Meter(config.quotas)
    canaries = Canaries(config.targets, telemetry)
    lanes = Lanes(config)
    steering = Steering(config.pressure, lanes.chat)
    telemetry.registry.register(LaneCollector(lanes.statistics, steering.statistics))
    telemetry.registry.register(PolicyCollector(policy))

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(policy.close)  # after the backends: their last calls are settled by then
            await stack.enter_async_context(records)  # before all who write to it
            tracing = None
            if make_tracing is not None:
                tracing = await stack.enter_async_context(make_tracing())
                telemetry.registry.register(tracing)
            backends: dict[str, Backend] = {}
            for name, make in makers.items():
                backend = tracing.watch(make(), config.targets[name]) if tracing else make()
                backends[name] = await stack.enter_async_context(backend)
            health = Health(backends, config.probe, telemetry, canaries.idle)
            await health.check()
            jobs = [health.watch(), telemetry.log.run()]
            if canaries.watched:
                jobs.append(canaries.watch())
            if embedder is not None:
                await stack.enter_async_context(embedder)
            if isinstance(scorer, ScoringService):
                await stack.enter_async_context(scorer)
                jobs.append(scorer.watch())
            holder = await stack.enter_async_context(Holder(config.check, telemetry))
            chooser = Chooser(config.chat_targets(), health, scorer, policy, config.check, metrics, steering)
            dispatcher = Dispatcher(health, chooser, policy, metrics)
            caller = Caller(backends, lanes.chat, holder)
            similar = None
            if semantic is not None and embedder is not None:
                await stack.enter_async_context(semantic)
                similar = _make_similar(semantic, embedder, partial(answer_anew, dispatcher, caller), drain, telemetry)
                jobs += [semantic.learn(), similar.auditor.run()]
            keys = KeyMaker(Fingerprint(config, scorer, backends))
            responses = ResponseCache(config.cache.response, records, keys, similar)
            pipeline = Pipeline(
                responses,
                await stack.enter_async_context(Flights()),
                dispatcher,
                caller,
                config.embedding_targets(),
                EmbeddingCaller(backends, lanes.embedding, config.embedding_models(), vectors),
                health,
                policy,
                canaries,
            )
            counted = [cache for cache in (responses, semantic, vectors) if cache is not None]
            caches = Caches(records, counted, semantic)
            app.state.service = Service(
                config=config,
                admission=admission,
                chooser=chooser,
                pipeline=pipeline,
                health=health,
                scorer=scorer,
                telemetry=telemetry,
                drain=drain,
                meter=meter,
                lanes=lanes,
                steering=steering,
                canaries=canaries,
                caches=caches,
                tracing=tracing,
            )
            async with running(drain, *jobs):
                yield

    return Litestar(
        [*chat_routes(), *embedding_routes(), *status_routes(), *cache_routes(), *lane_routes(), *canary_routes()],
        lifespan=[lifespan],
        exception_handlers={Exception: as_error_response},
        request_max_body_size=config.limits.body_bytes,
        openapi_config=None,
        logging_config=None,
    )


def _make_embedder(config: Config, telemetry: Telemetry, cache: EmbeddingCache | None) -> Embedder | None:
    """None where there is no model, or nothing to embed for: an encoder takes some 50 MB."""
    scoring = config.scoring
    wanted = scoring.use_embedding is not EmbeddingUse.NEVER or config.cache.semantic.enabled
    return Embedder(scoring, telemetry, cache) if scoring.embedding is not None and wanted else None


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


def _make_similar(
    semantic: SemanticCache,
    embedder: Embedder,
    answer: Callable[[Plan], Awaitable[str]],
    drain: Drain,
    telemetry: Telemetry,
) -> SimilarAnswers:
    """Audits run while no request does; what they embed is an answer, to whatever data, and so stays on site."""
    embed = partial(embedder.embed, tenant="", on_site=True)
    auditor = Auditor(answer, embed, lambda: not drain.busy(), semantic.judge, telemetry)
    return SimilarAnswers(semantic, embedder.embed, auditor)


def _make_scorer(config: Config, telemetry: Telemetry, embedder: Embedder | None) -> Scorer:
    if config.scoring.artifact_file() is None:
        return UnknownScorer()
    return ScoringService(config.scoring, telemetry, embedder)


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
