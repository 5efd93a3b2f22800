import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.wire import (
    LOWEST_LOGPROB,
    MOST_TOKENS,
    SamplingParameters,
    TokenLogprob,
    decode_logprobs,
    encode_logprobs,
    encode_sampling_parameters,
)


def test_logprobs_of_the_stock_backend_are_read() -> None:
    """As `src/utils/request.py` writes them: Python's json, token ids as keys, the chosen token first."""
    place = {
        7: {"logprob": -1.5, "rank": 2, "decoded_token": " yes"},
        3: {"logprob": -0.25, "rank": 1, "decoded_token": " no"},
        9: {"logprob": -math.inf, "rank": 3, "decoded_token": None},
    }

    (choice,) = decode_logprobs(json.dumps([place]).encode())

    assert choice.chosen == TokenLogprob(" yes", -1.5, 2)
    assert [entry.token for entry in choice.ranked] == [" no", " yes", ""]
    assert choice.ranked[-1].logprob == LOWEST_LOGPROB
    assert choice.top(1) == (TokenLogprob(" no", -0.25, 1),)


def test_no_logprobs_read_as_none() -> None:
    assert decode_logprobs(b"null") == []


@pytest.mark.parametrize("broken", [b"{}", b'[{"1": {}}]', b"[{}]", b"[", b"\xff"])
def test_anything_else_is_an_error(broken: bytes) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        decode_logprobs(broken)


entries = st.builds(TokenLogprob, st.text(), st.floats(max_value=0, allow_nan=False), st.integers(1, 50))
places = st.dictionaries(st.integers(0, 100), entries, min_size=1, max_size=5)


@given(st.lists(places, max_size=4))
def test_what_is_written_is_read_back(written: list[dict[int, TokenLogprob]]) -> None:
    read = decode_logprobs(encode_logprobs(written))

    assert len(read) == len(written)
    for choice, place in zip(read, written, strict=True):
        first = next(iter(place.values()))
        assert choice.chosen.token == first.token
        assert choice.chosen.logprob == max(first.logprob, LOWEST_LOGPROB)
        assert len(choice.ranked) == len(place)
        assert sorted((entry.logprob for entry in choice.ranked), reverse=True) == [e.logprob for e in choice.ranked]


def test_unlimited_tokens_are_written_as_a_number() -> None:
    """The stock backend drops a null, and would stop after vLLM's default of 16."""
    written = json.loads(encode_sampling_parameters(SamplingParameters(max_tokens=None, temperature=0)))

    assert written == {"max_tokens": MOST_TOKENS, "temperature": 0}
