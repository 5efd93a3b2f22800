"""Scenarios as files: the bundled ones are right, wrong ones are told in one line."""

import os
from pathlib import Path

import pytest

from edge.engine.settings import ConfigError
from loadtests.swarm.cli import override
from loadtests.swarm.place import parse_cores
from loadtests.swarm.scenario import Closed, Open, list_scenarios, load_scenario

GOOD = """\
summary: one
arrival: {kind: open, rate_per_s: 2}
shape: {kind: steady, duration_s: 5}
"""


@pytest.mark.parametrize("name", list_scenarios())
def test_bundled(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.objectives
    assert scenario.summary.endswith(".")


def test_every_shape_is_bundled() -> None:
    kinds = {type(load_scenario(name).shape).__name__ for name in list_scenarios()}
    assert kinds == {"Steady", "Soak", "Ramp", "Spike", "Diurnal", "Overload"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("rate_per_s: 2", "rate_per_s: -2"), ["$.arrival.rate_per_s", "-2", "README"]),
        (GOOD.replace("kind: steady", "kind: steep"), ["'steep'", "$.shape"]),
        (GOOD.replace("duration_s", "duration"), ["duration", "$.shape"]),
        (GOOD + "forms: {chatt: 1}\n", ["'chatt'", "$.forms"]),
        (GOOD + "forms: {chat: 0}\n", ["$.forms", "sum to 0", "at least one above 0"]),
        (GOOD + "objectives: [{measure: accuracy}]\n", ["$.objectives[0]", "accuracy", "give `most` or `least`"]),
        (GOOD + "objectives: [{measure: accuracy, least: 1, most: 0.5}]\n", ["most 0.5 below least 1", "swap"]),
        (GOOD + "objectives: [{measure: accurate, least: 1}]\n", ["'accurate'", "$.objectives[0].measure"]),
        (GOOD.replace("steady, duration_s: 5", "ramp, duration_s: 5, start: 0, end: 0"), ["$.shape", "raise it"]),
        ("summary: [", ["not YAML"]),
    ],
)
def test_wrong_file_is_told_in_one_line(text: str, told: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *told):
        assert part in message


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"stedy: no such scenario; choose .*steady"):
        load_scenario("stedy")


def test_override() -> None:
    scenario = override(load_scenario("steady"), {("shape", "duration_s"): 3.0, ("arrival", "rate_per_s"): 9.0})
    assert scenario.shape.duration_s == 3
    assert isinstance(scenario.arrival, Open)
    assert scenario.arrival.rate_per_s == 9
    users = override(load_scenario("users"), {("arrival", "users"): 3})
    assert users.arrival == Closed(users=3, think_s=0.5)


def test_override_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"--users 3: this scenario's arrival has no such key"):
        override(load_scenario("steady"), {("arrival", "users"): 3})
    with pytest.raises(ConfigError, match=r"arrival\.rate_per_s.*choose another value"):
        override(load_scenario("steady"), {("arrival", "rate_per_s"): -1})


def test_cores() -> None:
    first = min(os.sched_getaffinity(0))
    assert parse_cores(f"{first},{first}") == [first, first]
    assert parse_cores("") == []
    with pytest.raises(ConfigError, match="'two' is no list of cores"):
        parse_cores("two")
    with pytest.raises(ConfigError, match="there is no core 99999 here; choose from"):
        parse_cores("99999")
