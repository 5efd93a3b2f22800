"""One `/v1/embeddings` request: what the cache has of its inputs, and a target for the rest."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from router.backends import Backend
from router.cache.directives import CacheControl
from router.cache.embedding import EmbeddingCache, Maker, Owner, StoredVector
from router.cache.plan import CacheStatus
from router.errors import NotCachedError
from router.lanes import TargetLane
from router.query import EmbeddingQuery, Embeddings, Input, Usage
from router.telemetry import Stopwatch

_NOT_CACHED: Final = "Not every vector is stored, and the request asks for no other (only-if-cached)."


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a request; a hit only if no target was called."""

    embeddings: Embeddings
    status: CacheStatus


class EmbeddingCaller:
    """Calls targets for the vectors that the cache lacks, of each different input once.

    Usage is the same with and without a cache: a vector is kept only with the number of its input's tokens. Ours tell
    it for each input. A server that tells no more than a request's sum tells it of an input that it was asked alone;
    what it was asked for among others is not kept.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        lanes: Mapping[str, TargetLane],
        models: Mapping[str, str],
        cache: EmbeddingCache | None,
    ) -> None:
        """
        Args:
            backends: By target.
            lanes: By target, those of its embedding model.
            models: The embedding model that each target is configured to ask for.
            cache: None: every vector is asked for.
        """
        self._backends = backends
        self._lanes = lanes
        self._models = models
        self._cache = cache

    async def embed(self, target: str, query: EmbeddingQuery, control: CacheControl, watch: Stopwatch) -> Embedded:
        """A vector an input, in order; nothing is kept of a request that fails. A vector is as good as new for as long
        as it is kept, so of the directives about age only a `max-age` of 0 counts.

        Raises:
            NotCachedError: not all of it is cached, and the request asks for no more.
            BackendError: the target failed.
            OverloadedError: it, or its lane, has no room.
            DeadlineError: no slot came free in time, or no answer.
        """
        cache = self._cache
        lookup = not (control.no_cache or control.no_store or control.max_age_s == 0)
        if cache is None or control.no_store:
            if control.only_if_cached:
                raise NotCachedError(_NOT_CACHED)
            return Embedded(await self._ask(target, query, query.inputs, watch), CacheStatus.BYPASS)
        maker = self._name_maker(target)
        known = await _look_up(cache, maker, query) if lookup else {}
        missing = [one for one in query.inputs if one not in known]
        tokens = sum(known[one].tokens or 0 for one in query.inputs if one in known)
        if missing and control.only_if_cached:
            raise NotCachedError(_NOT_CACHED)
        if missing:
            made, asked_tokens = await self._make(target, query, missing, watch)
            known, tokens = known | made, tokens + asked_tokens
            if maker == self._name_maker(target):  # else it may be another model's work
                _keep(cache, maker, query, made)
        status = CacheStatus.BYPASS if not lookup else CacheStatus.MISS if missing else CacheStatus.HIT
        return Embedded(Embeddings(tuple(known[one].vector for one in query.inputs), tokens), status)

    def _name_maker(self, target: str) -> Maker:
        """How the cache knows the model of a target, as far as the target tells which one it serves."""
        return Maker(Owner.TARGET, target, self._models[target], self._backends[target].version)

    async def _make(
        self, target: str, query: EmbeddingQuery, inputs: Sequence[Input], watch: Stopwatch
    ) -> tuple[dict[Input, StoredVector], int]:
        """The vectors of inputs, and the tokens of all of them, the repeated ones too."""
        different = tuple(dict.fromkeys(inputs))
        said = await self._ask(target, query, different, watch)
        counts = (said.prompt_tokens,) if len(different) == 1 else said.counts
        if counts is not None:
            made = dict(zip(different, map(StoredVector, said.vectors, counts), strict=True))
            return made, sum(made[one].tokens or 0 for one in inputs)
        tokens = said.prompt_tokens
        if repeated := tuple((Counter(inputs) - Counter(different)).elements()):
            # their tokens are to be counted again, and nobody else can
            tokens += (await self._ask(target, query, repeated, watch)).prompt_tokens
        return dict(zip(different, map(StoredVector, said.vectors), strict=True)), tokens

    async def _ask(self, target: str, query: EmbeddingQuery, inputs: tuple[Input, ...], watch: Stopwatch) -> Embeddings:
        part = replace(query, inputs=inputs)
        async with self._lanes[target].slot(part, watch) as run:
            with watch.wait_backend():
                embeddings = await self._backends[target].embed(part)
            run.finish(Usage(embeddings.prompt_tokens))
        return embeddings


def _keep(cache: EmbeddingCache, maker: Maker, query: EmbeddingQuery, made: Mapping[Input, StoredVector]) -> None:
    for one, vector in made.items():
        if vector.tokens is not None:
            cache.write(maker, query.tenant, one, vector, on_site=query.on_site)


async def _look_up(cache: EmbeddingCache, maker: Maker, query: EmbeddingQuery) -> dict[Input, StoredVector]:
    """What is in memory, then all the rest at once, so that a slow tier delays a batch no longer than one input."""
    different = list(dict.fromkeys(query.inputs))
    found = {one: cache.peek(maker, query.tenant, one) for one in different}
    absent = [one for one in different if found[one] is None]
    found |= zip(absent, await asyncio.gather(*(cache.read(maker, query.tenant, one) for one in absent)), strict=True)
    return {one: vector for one, vector in found.items() if vector is not None and vector.tokens is not None}
