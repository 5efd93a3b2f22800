from pathlib import Path

import msgspec
import pytest

from edge.engine.settings import ConfigError
from router.config import load_config
from router.config.lanes import Lane, Pressure, Quotas, Shares


@pytest.mark.parametrize(
    ("section", "given", "said"),
    [
        (Lane, {"slot": 3}, "unknown field `slot`"),
        (Lane, {"slots": 0}, r">= 1 - at `\$.slots`"),
        (Lane, {"adaptive": {"least": 5, "most": 2}}, "least"),
        (Shares, {"interactive": 0.7, "standard": 0.4}, "more than 1 together"),
        (Pressure, {"engage": 0.3, "release": 0.5}, "release"),
        (Quotas, {"default": {"tokens_per_min": -1}}, "> 0.0 - at"),
        (Quotas, {"weights": {"ann": 0}}, "> 0.0 - at"),
    ],
)
def test_bad_settings_are_named(section: type, given: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(given, section)


@pytest.mark.parametrize("section", [Lane, Pressure, Quotas])
def test_the_defaults_are_valid_and_have_a_schema(section: type) -> None:
    assert msgspec.convert(msgspec.to_builtins(section()), section) == section()
    assert msgspec.json.schema(section)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("lane: {slots: 0}", "$.targets[...].lane.slots"),
        ("lane: {shares: {interactive: 0.9, batch: 0.9}}", "$.targets[...].lane.shares"),
        ("embedding_lane: {backlog: -1}", "$.targets[...].embedding_lane.backlog"),
        ("lane: {slot: 3}", "$.targets[...].lane"),
    ],
)
def test_a_bad_lane_is_one_line_that_names_it(tmp_path: Path, more: str, said: str) -> None:
    (tmp_path / "router.yaml").write_text(
        f'targets:\n  shop: {{backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m, {more}}}\n'
    )

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "router.yaml")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pressure_needs_both_tiers(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text(
        'pressure: {enabled: true}\ntargets:\n  shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", '
        "chat_model: m}\n"
    )

    with pytest.raises(ConfigError, match=r"pressure\.enabled: there is no cloud target"):
        load_config(tmp_path / "router.yaml")
