"""A scenario: what is asked of a router, when, and how good the answers must be. One strict YAML file each."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from msgspec import Meta, field

from edge.engine.settings import ConfigError, read_settings
from loadtests.swarm.measures import Measure
from loadtests.swarm.record import Form, Origin
from loadtests.swarm.shapes import AnyShape
from router.config.section import Seconds, Section
from router.query import Priority

FOLDER = Path(__file__).with_name("scenarios")
Weight = Annotated[float, Meta(ge=0, le=1e6)]
Rate = Annotated[float, Meta(gt=0, le=1e5)]
Count = Annotated[int, Meta(ge=1, le=100_000)]


class Open(Section, frozen=True, tag_field="kind", tag="open"):
    """
    Requests come when they come, whatever became of the others. Beyond `most_in_flight` (of one worker) they wait in
    the generator, which is told, and counts as latency.
    """

    rate_per_s: Rate
    most_in_flight: Count = 512
    even: bool = False
    """Evenly spaced instead of at random (Poisson)."""


class Closed(Section, frozen=True, tag_field="kind", tag="closed"):
    """So many users, each of whom asks again `think_s` after the answer."""

    users: Count
    think_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class Urgency(Section, frozen=True):
    """A class of requests: how many belong to it, and how long they can wait."""

    weight: Weight = 1.0
    deadline_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None


class Only(Section, frozen=True):
    """Requests that an objective is about: those that are all of what is said."""

    tier: str | None = None
    reason: str | None = None
    form: Form | None = None
    origin: Origin | None = None
    priority: Priority | None = None
    cache: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """What is named, and its value."""
        values = {column: getattr(self, column) for column in self.__struct_fields__}
        return {column: str(value) for column, value in values.items() if value is not None}


class Objective(Section, frozen=True):
    """A measure and its limits; the run fails when it is outside, or when there is nothing to measure."""

    measure: Measure
    most: float | None = None
    least: float | None = None
    only: Only = Only()

    @property
    def name(self) -> str:
        """The measure, and of what."""
        return " ".join([self.measure.value, *self.only.columns.values()])


class Answers(Section, frozen=True):
    """How answers are asked for."""

    max_tokens: Annotated[int, Meta(ge=1, le=8192)] = 320
    cached: bool = True
    """Whether caches may answer; without them every request is generated."""
    deadline_s: Seconds = 120.0
    """After so long the generator hangs up; a request's own deadline is its priority's."""


class Model(StrEnum):
    """Who is asked: the router decides, or a tier is named."""

    AUTO = "auto"
    EDGE = "edge"
    CLOUD = "cloud"


class Scenario(Section, frozen=True):
    """Weights are parts of their sum."""

    summary: str
    arrival: Open | Closed
    shape: AnyShape
    questions: Mapping[Origin, Weight] = field(default_factory=lambda: {Origin.EASY: 1.0, Origin.HARD: 1.0})
    forms: Mapping[Form, Weight] = field(default_factory=lambda: {Form.CHAT: 1.0})
    priorities: Mapping[Priority, Urgency] = field(default_factory=lambda: {Priority.STANDARD: Urgency()})
    models: Mapping[Model, Weight] = field(default_factory=lambda: {Model.AUTO: 1.0})
    answers: Answers = Answers()
    objectives: tuple[Objective, ...] = ()
    seed: Annotated[int, Meta(ge=0, le=2**32)] = 1


def list_scenarios() -> list[str]:
    """Names of the bundled ones."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_scenario(name: str) -> Scenario:
    """A bundled scenario by name, or any by its file.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            raise ConfigError(f"{name}: no such scenario; choose {', '.join(list_scenarios())}, or give a .yaml file")
    try:
        scenario = read_settings(path, Scenario, fix="loadtests/swarm/README.md lists every key")
    except ConfigError as exc:
        raise ConfigError(f"{exc}{_name_value(path, str(exc))}") from exc
    if complaint := next(_complaints(scenario), None):
        raise ConfigError(f"{path}: {complaint}")
    return scenario


def _name_value(path: Path, complaint: str) -> str:
    """What stands in the file where a complaint points, or nothing where it does not point at a value."""
    found = re.search(r" - at `\$([^`]*)`", complaint)
    if found is None:
        return ""
    value: Any = yaml.safe_load(path.read_bytes())
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", found[1]):
        try:
            value = value[key or int(index)]
        except (KeyError, IndexError, TypeError):
            return ""
    return f" (it is {value!r} now)" if isinstance(value, str | int | float) else ""


def _complaints(scenario: Scenario) -> Iterator[str]:
    weights: dict[str, list[float]] = {
        "questions": list(scenario.questions.values()),
        "forms": list(scenario.forms.values()),
        "priorities": [urgency.weight for urgency in scenario.priorities.values()],
        "models": list(scenario.models.values()),
    }
    for key, values in weights.items():
        if not sum(values) > 0:
            yield f"$.{key}: weights sum to {sum(values):g}; give at least one above 0"
    if scenario.shape.highest <= 0:
        yield "$.shape: its highest level is 0; raise it, or nothing is ever asked"
    for index, one in enumerate(scenario.objectives):
        key = f"$.objectives[{index}]"
        if one.most is None and one.least is None:
            yield f"{key}: {one.name} has no limit; give `most` or `least`"
        elif one.most is not None and one.least is not None and one.most < one.least:
            yield f"{key}: {one.name} has most {one.most:g} below least {one.least:g}; swap them"
