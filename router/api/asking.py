"""What a request's headers say: who asks, how urgently, by when, and where the answer may come from."""

import random
import re
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from router.admission import Admission, Client
from router.cache.directives import Caching, parse_cache_control
from router.decision import Label, Rules, Tier
from router.errors import RequestError
from router.query import Capability, EmbeddingQuery, Priority, Query

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
_TAG = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")
_MOST_TAGS = 8
_CACHING_FIELDS = frozenset({"cache-control", "if-none-match", "x-cache-tags"})
_UNSAID = Caching()
AnyQuery = TypeVar("AnyQuery", Query, EmbeddingQuery)


class Switch(StrEnum):
    """Something a request may ask for or decline."""

    ON = "on"
    OFF = "off"


Fields = Mapping[str, str]
"""Header values by lower-case name."""
Member = TypeVar("Member", Priority, Tier, Label, Switch)


class Asker(Struct, frozen=True):
    """A request's headers, understood."""

    client: Client
    request_id: str
    priority: Priority | None
    deadline: float
    wish: Tier | None
    labels: frozenset[Label]
    threshold: float | None
    check: Switch | None
    caching: Caching

    def rules(self, model: str, needs: frozenset[Capability]) -> Rules:
        """What the decision must keep to."""
        return Rules(
            model,
            self.wish,
            self.labels | self.client.labels,
            self.client.tiers,
            needs,
            self.threshold,
            None if self.check is None else self.check is Switch.ON,
        )

    def complete(self, query: AnyQuery) -> AnyQuery:
        """The query with what only headers say; `x-priority` wins over `service_tier`, the key's cap over both."""
        return replace(
            query,
            priority=self.client.cap(self.priority or query.priority),
            deadline=self.deadline,
            request_id=self.request_id,
            tenant=self.client.tenant,
            on_site=Label.EDGE_ONLY in self.labels | self.client.labels,
        )


def read_fields(raw: Iterable[tuple[bytes, bytes]]) -> Fields:
    """ASGI's headers, whose names are in lower case already; what is sent twice is joined, as RFC 9110 has it."""
    fields: dict[str, str] = {}
    for name, value in raw:
        key, said = name.decode("latin-1"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {said}" if key in fields else said
    return fields


def read_headers(headers: Fields, admission: Admission, longest_s: float) -> Asker:
    """Understand a request's headers.

    Args:
        headers: The request's.
        admission: Knows the keys.
        longest_s: `limits.deadline_s`, for a request that names no deadline or a later one.

    Raises:
        AuthenticationError: the key.
        RequestError: a header's value.
    """
    client = admission.admit(headers.get("authorization"))
    asked_id = headers.get("x-request-id", "")
    return Asker(
        client,
        asked_id if asked_id and _REQUEST_ID.match(asked_id) else _make_request_id(),
        _member(Priority, headers, "x-priority"),
        time.monotonic() + min(_deadline_s(headers) or longest_s, longest_s),
        _member(Tier, headers, "x-route"),
        _labels(headers),
        _threshold(headers),
        _member(Switch, headers, "x-answer-check"),
        _caching(headers),
    )


def _make_request_id() -> str:
    """To tell requests apart in logs: it protects nothing, so it need not come from the kernel, which takes longer."""
    return f"req_{random.getrandbits(96):024x}"


def _labels(headers: Fields) -> frozenset[Label]:
    listed = headers.get("x-data-label")
    if not listed:
        return frozenset()
    return frozenset(_parse(Label, one.strip(), "x-data-label") for one in listed.split(",") if one.strip())


def _caching(headers: Fields) -> Caching:
    if headers.keys().isdisjoint(_CACHING_FIELDS):
        return _UNSAID
    tags = tuple(dict.fromkeys(tag.strip() for tag in headers.get("x-cache-tags", "").split(",") if tag.strip()))
    if len(tags) > _MOST_TAGS or not all(map(_TAG.match, tags)):
        raise RequestError(
            f"Invalid x-cache-tags: expected at most {_MOST_TAGS}, each of 1 to 64 letters, digits or ._:-.",
            param="x-cache-tags",
        )
    control = parse_cache_control(headers.get("cache-control", ""))
    return Caching(control, tags, headers.get("if-none-match", ""))


def _deadline_s(headers: Fields) -> float | None:
    """`x-deadline-ms`, else the timeout that OpenAI's SDKs announce, in seconds."""
    for name, scale in (("x-deadline-ms", 1e-3), ("x-stainless-read-timeout", 1.0), ("x-stainless-timeout", 1.0)):
        value = headers.get(name)
        if value is None or value.lower() == "none":
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = -1.0
        if seconds > 0:
            return seconds
        if name == "x-deadline-ms":
            raise RequestError(f"Invalid x-deadline-ms: {value!r}. Expected a number above 0.", param=name)
    return None


def _threshold(headers: Fields) -> float | None:
    """`x-route-threshold`, in the policy's place."""
    name = "x-route-threshold"
    value = headers.get(name)
    if value is None:
        return None
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if 0 <= threshold <= 1:
        return threshold
    raise RequestError(f"Invalid {name}: {value!r}. Expected a number from 0 to 1.", param=name)


def _member(kind: type[Member], headers: Fields, name: str) -> Member | None:
    value = headers.get(name)
    return None if value is None else _parse(kind, value, name)


def _parse(kind: type[Member], value: str, name: str) -> Member:
    try:
        return kind(value.strip().lower())
    except ValueError:
        allowed = ", ".join(kind)
        raise RequestError(f"Invalid {name}: {value!r}. Expected one of: {allowed}.", param=name) from None
