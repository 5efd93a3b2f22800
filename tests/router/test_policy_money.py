from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.template import ChatTemplate
from edge.engine.tokens import Tokenizer
from router.config import Price
from router.policy.money import PICOS, Tariff, amount, most_prompt_tokens, picos
from router.query import Conversation, JsonFormat, Message, Parameters, Query, RawPrompts, Usage

DEMO = Path(__file__).parents[2] / "cloud" / "demo"
TARIFF = Tariff.of(Price(prompt_per_mtok=0.0375, completion_per_mtok=0.15, most_completion_tokens=100))


def query(*texts: str, **parameters: object) -> Query:
    """A conversation of user turns."""
    return Query(Conversation(tuple(Message("user", text) for text in texts)), Parameters(**parameters))  # type: ignore[arg-type]


def test_prices_of_six_decimals_are_exact_and_finer_ones_rounded_up() -> None:
    assert (TARIFF.prompt, TARIFF.completion) == (37_500, 150_000)
    assert Tariff.of(Price(prompt_per_mtok=0.000001, completion_per_mtok=0.0000001)) == Tariff(1, 1, 4096)


@given(st.integers(0, 10**9))
def test_a_million_tokens_cost_their_price(thousandths: int) -> None:
    price = thousandths / 1000

    cost = Tariff.of(Price(prompt_per_mtok=price, completion_per_mtok=0)).cost(Usage(10**6, 0))

    assert amount(cost) == Decimal(thousandths) / 1000


def test_limits_are_rounded_down() -> None:
    assert picos(0.1) == PICOS // 10
    assert picos(1.9e-12) == 1


@pytest.mark.parametrize(
    ("one", "completion"),
    [
        (query("Hi"), 100),
        (query("Hi", max_tokens=7), 7),
        (query("Hi", max_tokens=7, n=3), 21),
        (query("Hi", max_tokens=500), 500),
        (Query(RawPrompts(("a", "b")), Parameters(n=2)), 400),
    ],
)
def test_the_bound_counts_every_answer_to_its_end(one: Query, completion: int) -> None:
    assert TARIFF.bound(one) == TARIFF.cost(Usage(most_prompt_tokens(one), completion))


def test_an_open_answer_is_ended_and_a_closed_one_left_alone() -> None:
    assert TARIFF.limit(query("Hi", seed=1)) == query("Hi", seed=1, max_tokens=100)
    assert TARIFF.limit(query("Hi", max_tokens=500)) == query("Hi", max_tokens=500)


def test_a_schema_counts_as_prompt() -> None:
    wanted = JsonFormat(schema=b"x" * 1000)

    assert most_prompt_tokens(query("Hi", json_format=wanted)) >= most_prompt_tokens(query("Hi")) + 1000


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5))
def test_no_real_tokenizer_exceeds_the_bound(texts: list[str]) -> None:
    template = ChatTemplate.load(DEMO / "tokenizer_config.json")
    tokenizer = Tokenizer(DEMO / "tokenizer.json")
    rendered = template.render([{"role": "user", "content": text} for text in texts])

    assert len(tokenizer.encode(rendered)) <= most_prompt_tokens(query(*texts))
    for text in texts:
        assert len(tokenizer.encode(text)) <= most_prompt_tokens(Query(RawPrompts((text,)), Parameters()))
