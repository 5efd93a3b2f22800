"""No request ever gets an entry of a different key, and keys are equal exactly when what shapes an answer is."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from router.cache.keys import CacheKey, KeyMaker, is_storable
from router.config.cache import Storable
from router.decision import Label, Rules, Tier
from router.query import Capability, Conversation, JsonFormat, Message, Parameters, Priority, Prompt, Query, RawPrompts
from router.wire import ChatRequest, CompletionRequest

FINGERPRINT = ["configuration", "artifact", "version"]
BASE = Query(Conversation((Message("system", "Be brief."), Message("user", "What is 2 plus 2?"))), Parameters())
RULES = Rules()

# few values each, with the traps of naive concatenation among them, so that equal and nearly equal requests are common
words = st.sampled_from(["", "a", "b", "ab", "a\x00", "\x00a", '","', "user", "é", "e\u0301"])
roles = st.sampled_from(["system", "user", "assistant"])
messages = st.builds(Message, role=roles, text=words, name=st.none() | words)
prompts: st.SearchStrategy[Prompt] = st.one_of(
    st.lists(messages, min_size=1, max_size=3).map(lambda turns: Conversation(tuple(turns))),
    st.lists(words, min_size=1, max_size=2).map(lambda texts: RawPrompts(tuple(texts))),
)
parameters = st.builds(
    Parameters,
    max_tokens=st.sampled_from([None, 1, 16]),
    temperature=st.sampled_from([None, 0.0, 1.0]),
    stop=st.lists(words, max_size=2).map(tuple),
    seed=st.sampled_from([None, 0, 1]),
    n=st.integers(1, 2),
    logprobs=st.booleans(),
    json_format=st.sampled_from([None, JsonFormat(), JsonFormat(b"{}"), JsonFormat(strict=True)]),
    logit_bias=st.dictionaries(st.sampled_from(["1", "2"]), st.sampled_from([0.0, 1.0])),
)
rules = st.builds(
    Rules,
    model=st.sampled_from(["auto", "edge", "cloud"]),
    wish=st.sampled_from([None, *Tier]),
    labels=st.frozensets(st.sampled_from(list(Label))),
    tiers=st.frozensets(st.sampled_from(list(Tier)), min_size=1),
    needs=st.frozensets(st.sampled_from([Capability.TOOLS, Capability.JSON_OBJECT, Capability.ECHO])),
    threshold=st.sampled_from([None, 0.0, 0.5]),
    check=st.sampled_from([None, True, False]),
    canaries=st.frozensets(st.sampled_from(["next", "other"])),
)
tenants = st.sampled_from(["", "a", "ab", "shop", "ward"])
fingerprints = st.lists(st.sampled_from(["", "1", "2", "12"]), max_size=3)
queries = st.builds(
    Query,
    prompt=prompts,
    parameters=parameters,
    priority=st.sampled_from(list(Priority)),
    deadline=st.sampled_from([None, 1.0]),
    request_id=words,
    tenant=tenants,
)
requests = st.tuples(queries, rules, fingerprints)
Request = tuple[Query, Rules, list[str]]


def key(request: Request) -> CacheKey:
    query, rules, fingerprint = request
    return KeyMaker(lambda _: fingerprint).make(query, rules)


def shape(request: Request) -> object:
    """All that may change an answer, said a second time."""
    query, rules, fingerprint = request
    return query.tenant, query.prompt, query.parameters, rules, fingerprint


def change(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (*value, "x")
        case dict():
            return {**value, "9": 1.0}
        case frozenset():
            return value | {"x"}
        case _:
            raise TypeError(value)


SAID: Mapping[str, Any] = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 1,
    "json_format": JsonFormat(),
    "wish": Tier.EDGE,
    "labels": frozenset({Label.EDGE_ONLY}),
    "tiers": frozenset({Tier.EDGE}),
    "needs": frozenset({Capability.TOOLS}),
    "threshold": 0.5,
    "check": True,
}


@given(requests, requests)
@settings(max_examples=400)
def test_keys_are_equal_exactly_when_the_requests_are(one: Request, other: Request) -> None:
    assert (key(one).exact == key(other).exact) == (shape(one) == shape(other))


@given(requests, requests)
@settings(max_examples=400)
def test_partitions_are_equal_exactly_when_all_but_the_last_user_turn_is(one: Request, other: Request) -> None:
    def before(request: Request) -> object:
        prompt = request[0].prompt
        if not isinstance(prompt, Conversation) or prompt.messages[-1].role != "user":
            return None
        blank = Conversation((*prompt.messages[:-1], replace(prompt.messages[-1], text="")))
        return shape((replace(request[0], prompt=blank), *request[1:]))

    for request in (one, other):
        assert (key(request).partition is None) == (before(request) is None)
    if before(one) is not None and before(other) is not None:
        assert (key(one).partition == key(other).partition) == (before(one) == before(other))


@given(requests)
def test_an_exact_key_is_never_a_partition(request_: Request) -> None:
    made = key(request_)
    assert made.partition is None or made.partition != made.exact


@pytest.mark.parametrize("name", [field.name for field in fields(Parameters)])
def test_every_parameter_is_in_the_key(name: str) -> None:
    other = replace(BASE, parameters=replace(BASE.parameters, **{name: _other(BASE.parameters, name)}))

    assert key((BASE, RULES, FINGERPRINT)).exact != key((other, RULES, FINGERPRINT)).exact
    assert key((BASE, RULES, FINGERPRINT)).partition != key((other, RULES, FINGERPRINT)).partition


@pytest.mark.parametrize("name", [field.name for field in fields(Rules)])
def test_every_rule_is_in_the_key(name: str) -> None:
    other = replace(RULES, **{name: _other(RULES, name)})

    assert key((BASE, RULES, FINGERPRINT)).partition != key((BASE, other, FINGERPRINT)).partition


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("other", [{"role": "assistant"}, {"text": "other"}, {"name": "ann"}])
def test_every_part_of_every_turn_is_in_the_key(place: int, other: dict[str, str]) -> None:
    assert isinstance(BASE.prompt, Conversation)
    turns = [replace(turn, **other) if index == place else turn for index, turn in enumerate(BASE.prompt.messages)]
    made = key((replace(BASE, prompt=Conversation(tuple(turns))), RULES, FINGERPRINT))

    assert made.exact != key((BASE, RULES, FINGERPRINT)).exact


def test_what_shapes_no_answer_is_not_in_the_key() -> None:
    other = replace(BASE, priority=Priority.BATCH, deadline=1.0, request_id="r")

    assert key((BASE, RULES, FINGERPRINT)) == key((other, RULES, FINGERPRINT))


@pytest.mark.parametrize("place", range(len(FINGERPRINT)))
def test_a_new_configuration_artifact_or_version_sees_no_old_entry(place: int) -> None:
    newer = [part + "2" if place == index else part for index, part in enumerate(FINGERPRINT)]

    assert key((BASE, RULES, FINGERPRINT)).exact != key((BASE, RULES, newer)).exact


NO_MATTER = {"stream", "stream_options", "service_tier", "user", "metadata", "store"}


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_every_field_of_a_request_reaches_the_key_or_is_known_not_to_matter(
    kind: type[ChatRequest] | type[CompletionRequest],
) -> None:
    """A field that somebody adds to the wire and forgets here fails this test."""
    chat = kind is ChatRequest
    plain = {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
    others: dict[str, Any] = {
        "model": "edge",
        "messages": [{"role": "user", "content": "ho"}],
        "prompt": "ho",
        "max_tokens": 3,
        "max_completion_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": "x",
        "seed": 3,
        "n": 2,
        "logprobs": True if chat else 1,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "logit_bias": {"1": 1},
        "tools": [{}],
        "functions": [{}],
        "modalities": ["audio"],
        "audio": {},
        "reasoning_effort": "high",
        "verbosity": "low",
        "web_search_options": {},
        "echo": True,
        "suffix": "x",
        "best_of": 2,
    }

    def made(body: Mapping[str, Any]) -> bytes:
        decoded = msgspec.json.decode(msgspec.json.encode(body), type=kind)
        rules = Rules(model=decoded.model, needs=decoded.needs())
        return key((decoded.query(), rules, FINGERPRINT)).exact

    for name in sorted({field.encode_name for field in msgspec.structs.fields(kind)} - NO_MATTER):
        body = {**plain, name: others[name]}
        base = {**plain, "logprobs": True} if name == "top_logprobs" else plain
        assert made(base) != made({**base, **body}), name


def test_only_answers_that_would_come_again_are_storable_by_default() -> None:
    sure = [Parameters(temperature=0.0), Parameters(seed=0), Parameters(temperature=1.0, seed=7)]
    unsure = [Parameters(), Parameters(temperature=0.1)]

    assert all(is_storable(one, Storable.DETERMINISTIC) for one in sure)
    assert not any(is_storable(one, Storable.DETERMINISTIC) for one in unsure)
    assert all(is_storable(one, Storable.ALL) for one in sure + unsure)


def _other(owner: Parameters | Rules, name: str) -> Any:
    return SAID[name] if name in SAID else change(getattr(owner, name))
