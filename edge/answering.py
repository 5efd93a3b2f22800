"""The engine's threads, seen from asyncio: answers as they come, and their work ended with whoever waits for it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge.bodies import Inputs
from edge.config import Chat, Embedding
from edge.engine.artifact import Artifact, ArtifactKind
from edge.engine.batching import MicroBatcher
from edge.engine.decoder import Decoder
from edge.engine.encoder import Encoder
from edge.engine.events import Delta, Event, Failure, Finish
from edge.engine.generation import Generation
from edge.engine.generator import Generator
from edge.engine.sampling import Sampling
from edge.engine.template import ChatTemplate
from edge.engine.tokens import Tokenizer
from edge.requests import ChatRequest, CompletionRequest

Piece = tuple[int, Delta | Finish]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request's headers say: its rank among those that wait, and its end on `time.monotonic()`'s clock."""

    priority: int
    deadline: float | None


class ChatModel:
    """One generating model: `async with`."""

    def __init__(self, config: Chat) -> None:
        """
        Raises:
            EngineError: the artifact is damaged, or cannot run here.
            TemplateError: it cannot chat.
        """
        artifact = Artifact.open(config.artifact, ArtifactKind.CHAT)
        self.name = artifact.manifest.name
        self.identity = artifact.identity
        self._temperature = config.temperature
        self._template = ChatTemplate.load(artifact.file("tokenizer_config.json"))
        self._tokenizer = Tokenizer(artifact.file("tokenizer.json"))
        decoder = Decoder(artifact.path, config.runtime.session(), slots=config.slots, context=config.context_tokens)
        self.generator = Generator(
            decoder, self._tokenizer, waiting=config.waiting, prefill_tokens=config.prefill_tokens
        )

    async def __aenter__(self) -> Self:
        self.generator.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.generator.__exit__, None, None, None)

    async def answer(self, request: ChatRequest | CompletionRequest, terms: Terms) -> AsyncGenerator[Piece, None]:
        """The pieces of all answers as they come: answer `i * n + k` is the k-th to prompt i.

        Closing the iterator frees the slots before the next decode step.

        Raises:
            EngineError, TemplateError, ApiError: the request cannot be answered, or broke.
        """
        prepared = await asyncio.to_thread(self._prepare, request)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def begin(index: int, generation: Generation) -> None:
            def deliver(event: Event) -> None:
                loop.call_soon_threadsafe(events.put_nowait, (index, event))

            self.generator.begin(generation, deliver, priority=terms.priority, deadline=terms.deadline)

        try:
            for index, generation in enumerate(prepared):
                begin(index, generation)
            unfinished = len(prepared)
            while unfinished:
                index, event = await events.get()
                if isinstance(event, Failure):
                    raise event.error
                yield index, event
                unfinished -= isinstance(event, Finish)
        finally:
            for generation in prepared:
                generation.cancel()

    def _prepare(self, request: ChatRequest | CompletionRequest) -> list[Generation]:
        sampling = request.sampling(self._temperature)
        if isinstance(request, ChatRequest):
            text = self._template.render([message.turn() for message in request.messages])
            prompts = [self._tokenizer.encode(text, add_special=False)]
        else:
            prompts = self._encode(request.prompts())
        return [
            self.generator.prepare(prompt, _reseed(sampling, k)) for prompt in prompts for k in range(request.n or 1)
        ]

    def _encode(self, prompts: Inputs) -> list[list[int]]:
        return [self._tokenizer.encode(one) if isinstance(one, str) else list(one) for one in prompts]


class EmbeddingModel:
    """One embedding model: `async with`."""

    def __init__(self, config: Embedding) -> None:
        """
        Raises:
            EngineError: the artifact is damaged, or cannot run here.
        """
        artifact = Artifact.open(config.artifact, ArtifactKind.EMBEDDING)
        self.name = artifact.manifest.name
        self.identity = artifact.identity
        self._encoder = Encoder(artifact.path, config.runtime.session())
        self.width = self._encoder.width
        self._batcher = MicroBatcher[list[int], NDArray[np.float32]](
            lambda rows: list(self._encoder.embed(rows)),
            most=config.batch_items,
            wait_s=config.wait_ms / 1e3,
            waiting=config.waiting,
        )

    async def __aenter__(self) -> Self:
        self._batcher.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._batcher.__exit__, None, None, None)

    async def embed(self, inputs: Inputs, terms: Terms) -> tuple[list[NDArray[np.float32]], list[int]]:
        """One L2-normed vector an input, and how many tokens were read of each.

        Raises:
            EngineError: too many wait, an input is wrong, the deadline passed first, or the model failed.
        """
        rows = await asyncio.to_thread(self._read, inputs)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # neighbours of a length need little padding
        submitted = self._batcher.submit([rows[i] for i in order], priority=terms.priority, deadline=terms.deadline)
        futures = [asyncio.wrap_future(future) for future in submitted]
        vectors = dict(zip(order, await asyncio.gather(*futures), strict=True))
        return [vectors[i] for i in range(len(rows))], list(map(len, rows))

    def _read(self, inputs: Inputs) -> list[list[int]]:
        texts = [one for one in inputs if isinstance(one, str)]
        return self._encoder.tokenize(texts) or [self._encoder.check(one) for one in inputs if not isinstance(one, str)]


def _reseed(sampling: Sampling, k: int) -> Sampling:
    """The k-th of several answers to one prompt has a seed of its own."""
    if sampling.seed is None or k == 0:
        return sampling
    return replace(sampling, seed=sampling.seed + k)
