"""Assembly: the only module that knows every other."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from litestar import Litestar

from edge.engine.settings import ConfigError
from edge.engine.template import ChatTemplate, TemplateError
from edge.serving import Drain, running
from router.admission import load_admission
from router.api.chat import chat_routes
from router.api.embeddings import embedding_routes
from router.api.exchange import Service
from router.api.failures import as_error_response
from router.api.status import status_routes
from router.backends import Backend
from router.backends.openai import OpenAIBackend
from router.backends.triton import TritonBackend
from router.cache import Records
from router.cache.embedding import EmbeddingCache
from router.calls import Caller
from router.choosing import Chooser
from router.config import AnyTarget, Config, EmbeddingUse, OpenAITarget, read_secret
from router.embedder import Embedder
from router.embedding_calls import EmbeddingCaller
from router.health import Health
from router.hold import Holder
from router.pipeline import Pipeline
from router.policy import make_policy
from router.routing_metrics import PolicyCollector, RoutingMetrics
from router.scoring import Scorer, UnknownScorer
from router.scoring.service import ScoringService
from router.telemetry import Telemetry


def create_app(config: Config, drain: Drain) -> Litestar:
    """The router as an ASGI application; nothing is opened before its lifespan starts.

    Raises:
        ConfigError: a file that the configuration names is wrong.
    """
    admission = load_admission(config.keys_file)
    makers = {name: _backend_maker(name, target) for name, target in config.targets.items()}
    telemetry = Telemetry()
    metrics = RoutingMetrics(telemetry)
    records: Records | None = None  # TieredRecords(config.cache.tiers, telemetry), entered in the lifespan
    vectors = _make_embedding_cache(config, records, telemetry)
    embedder = _make_embedder(config, telemetry, vectors)
    scorer = _make_scorer(config, telemetry, embedder)
    policy = make_policy(config)
    telemetry.registry.register(PolicyCollector(policy))

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(policy.close)  # after the backends: their last calls are settled by then
            backends: dict[str, Backend] = {}
            for name, make in makers.items():
                backends[name] = await stack.enter_async_context(make())
            health = Health(backends, config.probe, telemetry)
            await health.check()
            jobs = [health.watch()]
            if embedder is not None:
                await stack.enter_async_context(embedder)
            if isinstance(scorer, ScoringService):
                await stack.enter_async_context(scorer)
                jobs.append(scorer.watch())
            holder = await stack.enter_async_context(Holder(config.check, telemetry))
            chooser = Chooser(config.chat_targets(), health, scorer, policy, config.check, metrics)
            embedding_caller = EmbeddingCaller(backends, config.embedding_models(), vectors)
            pipeline = Pipeline(
                config.embedding_targets(), embedding_caller, health, chooser, Caller(backends, holder), policy, metrics
            )
            app.state.service = Service(config, admission, chooser, pipeline, health, scorer, telemetry, drain)
            async with running(drain, *jobs):
                yield

    return Litestar(
        [*chat_routes(), *embedding_routes(), *status_routes()],
        lifespan=[lifespan],
        exception_handlers={Exception: as_error_response},
        request_max_body_size=config.limits.body_bytes,
        openapi_config=None,
        logging_config=None,
    )


def _make_embedding_cache(config: Config, records: Records | None, telemetry: Telemetry) -> EmbeddingCache | None:
    section = config.cache.embedding
    return EmbeddingCache(records, section, telemetry) if records is not None and section.enabled else None


def _make_embedder(config: Config, telemetry: Telemetry, cache: EmbeddingCache | None) -> Embedder | None:
    """None where there is no model, or nothing to embed for: an encoder takes some 50 MB."""
    scoring = config.scoring
    wanted = scoring.use_embedding is not EmbeddingUse.NEVER or config.cache.semantic.enabled
    return Embedder(scoring, telemetry, cache) if scoring.embedding is not None and wanted else None


def _make_scorer(config: Config, telemetry: Telemetry, embedder: Embedder | None) -> Scorer:
    if config.scoring.artifact_file() is None:
        return UnknownScorer()
    return ScoringService(config.scoring, telemetry, embedder)


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
