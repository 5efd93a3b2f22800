"""Puts a task into words, taking only wordings of the split asked for."""

import random
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from loadtests.pair.questions.question import Split

Wordings = Mapping[str, tuple[str, ...]]


@cache
def load_wordings() -> Mapping[str, Wordings]:
    """Every wording by section, from `wordings.toml`."""
    text = (Path(__file__).parent.parent / "wordings.toml").read_text(encoding="utf-8")
    return {
        section: {key: tuple(values) for key, values in body.items()} for section, body in tomllib.loads(text).items()
    }


def choose(rng: random.Random, section: str, key: str) -> str:
    """One wording of a list."""
    return rng.choice(load_wordings()[section][key])


def phrase(rng: random.Random, split: Split, section: str) -> str:
    """A whole wording of a section with its slots still open: opener, core, closer, and small liberties of typing."""
    template = _core(rng, split, section)
    if rng.random() < 0.12 and template[-1] in "?.":
        template = template[:-1]
    elif rng.random() < 0.25:
        template += choose(rng, "closers", split)
    if rng.random() < 0.25:
        template = choose(rng, "openers", split) + template
    if rng.random() < 0.15:
        template = template[0].lower() + template[1:]
    return template


def fill(template: str, **slots: object) -> str:
    """The wording with its slots filled."""
    for name, value in slots.items():
        template = template.replace("{" + name + "}", str(value))
    return template


def _core(rng: random.Random, split: Split, section: str) -> str:
    wordings = load_wordings()[section]
    phrases = wordings.get(f"{split}_phrases", ())
    sentences = wordings.get(f"{split}_sentences", ())
    # A phrase meets many asks, so it is worth about two sentences.
    if rng.random() * (2 * len(phrases) + len(sentences)) < 2 * len(phrases):
        return choose(rng, "asks", split).replace("{x}", rng.choice(phrases))
    return rng.choice(sentences)
