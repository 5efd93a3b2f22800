"""Assembly: the only module that knows every other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar

from edge.answering import ChatModel, EmbeddingModel
from edge.api import Service, routes
from edge.config import Config
from edge.failures import answer_failure
from edge.serving import Drain
from edge.telemetry import Telemetry


def create_app(config: Config, drain: Drain) -> Litestar:
    """The edge as an ASGI application, its models loaded; their threads run during its lifespan.

    Raises:
        EngineError: a model is damaged, or cannot run here.
        TemplateError: the chat model has no usable template.
    """
    chat = ChatModel(config.chat)
    embedding = EmbeddingModel(config.embedding) if config.embedding else None
    service = Service(chat, embedding, drain, Telemetry(chat.generator, chat.name))

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(chat)
            if embedding is not None:
                await stack.enter_async_context(embedding)
            app.state.service = service
            yield

    return Litestar(
        routes(),
        lifespan=[lifespan],
        exception_handlers={Exception: answer_failure},
        request_max_body_size=config.limits.body_bytes,
        openapi_config=None,
        logging_config=None,
    )
