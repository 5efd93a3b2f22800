"""What is asked: a seeded stream of questions with known answers, in the mix that a scenario states."""

import random
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from loadtests.pair.questions import KINDS, Kind, Question, Split, generate, is_correct, make_question
from loadtests.pair.questions.wording import fill, load_wordings, phrase
from loadtests.swarm.record import Form, Origin
from loadtests.swarm.scenario import Model, Scenario
from router.query import Priority

_REMEMBERED = 64
_DRAWN_FOR_HALVES = 4000
_MOST_TRIES = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to come, without its time."""

    number: int
    question: Question
    origin: Origin
    form: Form
    priority: Priority
    deadline_ms: int | None
    model: Model

    def judge(self, text: str) -> bool:
        """Whether a reply gives the known answer."""
        return is_correct(self.question, text)


def draw_requests(scenario: Scenario) -> Iterator[Request]:
    """Without end; the same for the same scenario in every process."""
    rng = random.Random(f"swarm/{scenario.seed}")
    asked: deque[Question] = deque(maxlen=_REMEMBERED)
    urgencies = {priority: urgency.weight for priority, urgency in scenario.priorities.items()}
    number = 0
    while True:
        origin = _choose(rng, scenario.questions)
        question = _draw_question(rng, origin, asked)
        if origin in {Origin.EASY, Origin.HARD}:
            asked.append(question)
        priority = _choose(rng, urgencies)
        form, model = _choose(rng, scenario.forms), _choose(rng, scenario.models)
        yield Request(number, question, origin, form, priority, scenario.priorities[priority].deadline_ms, model)
        number += 1


def paraphrase(rng: random.Random, question: Question) -> Question | None:
    """The same question in other words: its numbers and letters are put into another wording of its kind.

    None where the wordings of its kind do not stand for one another, or no other was found.
    """
    if question.kind not in load_wordings():
        return None
    role, text = question.messages[-1]
    slots = _slots(question.wording, text)
    if slots is None:
        return None
    for _ in range(_MOST_TRIES):
        wording = phrase(rng, Split.TEST, question.kind)
        if _words(wording) != _words(question.wording) and _names(wording) == slots.keys():
            messages = (*question.messages[:-1], (role, fill(wording, **slots)))
            return replace(question, messages=messages, wording=wording)
    return None


def _slots(wording: str, text: str) -> Mapping[str, str] | None:
    """What fills the slots of a wording in a text; None where the text is not that wording, filled."""
    pieces, known = [], set()
    for part in re.split(r"(\{\w+\})", wording):
        name = part[1:-1]
        if not (part.startswith("{") and part.endswith("}")):
            pieces.append(re.escape(part))
        elif name in known:
            pieces.append(f"(?P={name})")
        else:
            known.add(name)
            pieces.append(f"(?P<{name}>.+?)")
    found = re.fullmatch("".join(pieces), text, re.DOTALL)
    return found.groupdict() if found else None


def _names(wording: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", wording))


def _words(wording: str) -> list[str]:
    """Without case, punctuation, and the openers and closers that say nothing."""
    text = wording.casefold()
    for section in ("openers", "closers"):
        for courtesy in load_wordings()[section][Split.TEST]:
            text = text.replace(courtesy.casefold(), "")
    return re.findall(r"\w+", text)


def _draw_question(rng: random.Random, origin: Origin, asked: Sequence[Question]) -> Question:
    if origin is Origin.DUPLICATE and asked:
        return rng.choice(asked)
    if origin is Origin.PARAPHRASE:
        for question in rng.sample(asked, len(asked)):
            if (other := paraphrase(rng, question)) is not None:
                return other
    # a repetition of nothing yet is a new question
    return _draw_new(rng, hard=origin is Origin.HARD if origin in {Origin.EASY, Origin.HARD} else rng.random() < 0.5)


def _draw_new(rng: random.Random, *, hard: bool) -> Question:
    kind = rng.choice(tuple(KINDS))
    while True:
        question = make_question(rng, kind, Split.TEST)
        if (question.difficulty > _halves()[kind]) is hard:
            return question


@cache
def _halves() -> Mapping[Kind, float]:
    """The middle of each kind's difficulties; above it a question counts as hard."""
    seen: dict[Kind, set[int]] = {}
    for question in generate(0, _DRAWN_FOR_HALVES, Split.TEST):
        seen.setdefault(question.kind, set()).add(question.difficulty)
    return {kind: (min(found) + max(found)) / 2 for kind, found in seen.items()}


def _choose(rng: random.Random, weights: Mapping[T, float]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]
