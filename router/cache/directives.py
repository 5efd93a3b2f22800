"""What a request says of caching, and whether a stored answer may serve it. Pure.

`Cache-Control` of requests: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1, `stale-if-error`: RFC 5861.
"""

import math
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from router.config.cache import Freshness


class CacheControl(Struct, frozen=True):
    """The directives of a request; durations in seconds, None where the request says nothing."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None
    min_fresh_s: float = 0.0
    max_stale_s: float = 0.0
    stale_if_error_s: float | None = None


class Caching(Struct, frozen=True):
    """All that a request says: directives, the tags that its answer is to be found by, the answers that it has."""

    control: CacheControl = CacheControl()
    tags: tuple[str, ...] = ()
    none_match: str = ""

    def has(self, answer_id: str) -> bool:
        """Whether the client has this answer; the comparison is the weak one, as RFC 9110 asks of `If-None-Match`."""
        if not self.none_match:
            return False
        listed = {tag.strip().removeprefix("W/").strip('"') for tag in self.none_match.split(",")}
        return answer_id in listed


class Use(StrEnum):
    """What a stored answer is good for."""

    FRESH = "fresh"
    REVALIDATE = "revalidate"
    ON_ERROR = "on-error"
    NONE = "none"


def parse_cache_control(header: str) -> CacheControl:
    """Understand the header; unknown directives are ignored, a duration that is none counts as 0."""
    if not header:
        return CacheControl()
    said = _split(header)
    return CacheControl(
        no_cache="no-cache" in said,
        no_store="no-store" in said,
        only_if_cached="only-if-cached" in said,
        max_age_s=_seconds(said, "max-age"),
        min_fresh_s=_seconds(said, "min-fresh") or 0.0,
        # without a value a client takes an answer of any age
        max_stale_s=math.inf if said.get("max-stale") == "" else _seconds(said, "max-stale") or 0.0,
        stale_if_error_s=_seconds(said, "stale-if-error"),
    )


def lifetime_s(freshness: Freshness, key: bytes) -> float:
    """How long the answer under a key is fresh: the same in every replica, and spread over the jitter."""
    return freshness.ttl_s * (1.0 - freshness.jitter * int.from_bytes(key[:2]) / 0xFFFF)


def longest_use_s(freshness: Freshness) -> float:
    """From when on an answer is of no use to anyone."""
    return freshness.ttl_s + max(freshness.stale_while_revalidate_s, freshness.stale_if_error_s)


def judge_use(age_s: float, fresh_s: float, freshness: Freshness, control: CacheControl) -> Use:
    """What an answer of this age may do for a request; `fresh_s` as `lifetime_s` gives it."""
    if control.no_cache:
        return Use.NONE
    stale_s = age_s + control.min_fresh_s - fresh_s
    if control.max_age_s is None or age_s <= control.max_age_s:
        if stale_s <= control.max_stale_s:
            return Use.FRESH
        if stale_s <= freshness.stale_while_revalidate_s:
            return Use.REVALIDATE
    on_error_s = freshness.stale_if_error_s
    if control.stale_if_error_s is not None:
        on_error_s = min(on_error_s, control.stale_if_error_s)
    return Use.ON_ERROR if stale_s <= on_error_s else Use.NONE


def _split(header: str) -> Mapping[str, str]:
    pairs = (part.partition("=") for part in header.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _seconds(said: Mapping[str, str], name: str) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    return float(value) if value.isascii() and value.isdigit() else 0.0
