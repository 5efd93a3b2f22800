"""`POST /v1/embeddings`."""

import base64

import msgspec
import numpy as np
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp

from edge import wire
from router.api.asking import Asker
from router.api.exchange import EMBEDDING_URL, Exchange, json_answer, post_route
from router.errors import RequestError
from router.query import Usage
from router.wire import EmbeddingRequest


def embedding_route() -> ASGIRouteHandler:
    """The handler."""
    decoder = msgspec.json.Decoder(EmbeddingRequest)

    async def work(exchange: Exchange, asker: Asker, content: bytes) -> ASGIApp:
        body = decoder.decode(content)
        query = asker.complete(body.query())
        rules = asker.rules(body.model, frozenset())
        exchange.asked_model = body.model
        exchange.take_quota(query)
        answer = await exchange.service.pipeline.embed(query, rules, asker.caching, exchange.watch)
        exchange.usage = Usage(answer.embeddings.prompt_tokens)
        data = [
            wire.Embedding(index, _said(shorten(vector, body.dimensions), body.encoding_format))
            for index, vector in enumerate(answer.embeddings.vectors)
        ]
        tokens = answer.embeddings.prompt_tokens
        listed = wire.EmbeddingList(data=data, model=body.model, usage=wire.Usage(tokens, 0, tokens))
        headers = exchange.answered(answer.decision, answer.status)
        return json_answer(msgspec.json.encode(listed), headers)

    return post_route(EMBEDDING_URL, work)


def shorten(vector: bytes, dimensions: int | None) -> bytes:
    """The first `dimensions` numbers of a little-endian float32 vector, scaled to length 1 again, as OpenAI does.

    Raises:
        RequestError: the vector has fewer.
    """
    width = len(vector) // 4
    if dimensions is None or dimensions == width:
        return vector
    if dimensions > width:
        raise RequestError(
            f"Invalid 'dimensions': this model has {width}, {dimensions} were asked for.",
            param="dimensions",
            code="invalid_value",
        )
    short = np.frombuffer(vector, "<f4")[:dimensions]
    return (short / max(float(np.linalg.norm(short)), 1e-12)).astype("<f4").tobytes()


def _said(vector: bytes, encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector).decode()
    numbers: list[float] = np.frombuffer(vector, "<f4").tolist()
    return numbers
