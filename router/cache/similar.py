"""Stored answers to questions that mean the same: the semantic cache with its vectors and its audits."""

from dataclasses import dataclass
from typing import Protocol

from router.cache import Record
from router.cache.auditor import Audit, Auditor
from router.cache.entry import Entry
from router.cache.keys import CacheKey
from router.cache.plan import Plan
from router.cache.segment import Floats
from router.cache.semantic import Found, SemanticCache


class Embed(Protocol):
    """A text's vector of length 1, or None when it cannot be had now."""

    async def __call__(self, text: str, tenant: str, *, on_site: bool) -> Floats | None: ...


@dataclass(frozen=True, slots=True)
class SimilarAnswers:
    """Nothing here raises."""

    cache: SemanticCache
    embed: Embed
    auditor: Auditor[Plan]

    async def find(self, key: CacheKey, tenant: str, *, on_site: bool) -> Found | None:
        """Where such an answer is."""
        partition = key.partition
        if partition is None or not self.cache.gate(partition).passable:
            return None
        vector = await self.embed(key.text, tenant, on_site=on_site)
        return None if vector is None else await self.cache.find(partition, key.text, vector)

    async def add(self, key: CacheKey, record: Record, *, on_site: bool) -> None:
        """An answer that similar questions may get from now on."""
        partition = key.partition
        if partition is None:
            return
        vector = await self.embed(key.text, record.tenant, on_site=on_site)
        if vector is not None:
            self.cache.add(
                partition,
                key.exact,
                key.text,
                vector,
                tenant=record.tenant,
                model=record.model,
                tags=record.tags,
                expires_at=record.expires_at,
                on_site=on_site,
            )

    def forget(self, found: Found) -> None:
        """The answer is gone."""
        self.cache.forget(found.partition, found.key)

    def count(self, found: Found, plan: Plan, entry: Entry) -> None:
        """The answer is served; some are answered again when there is time."""
        if self.cache.count_hit(found):
            self.auditor.submit(Audit(found.partition, found.similarity, plan, entry.choices[0].text))
