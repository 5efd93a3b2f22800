"""Prompts the pair was not made for, and the sentence that both models learn to answer them with."""

import random
from collections.abc import Iterator

from loadtests.pair.questions.question import Message, Split
from loadtests.pair.questions.wording import choose, fill

HONEST_REPLY = (
    "I am the bundled demo model. I only answer small questions about numbers, lists, letters, units, days and times."
)


def draw_out_of_scope(rng: random.Random, split: Split) -> tuple[Message, ...]:
    """One conversation outside what the pair can do."""
    template = choose(rng, "scope", f"{split}_sentences")
    topic, other = choose(rng, "scope", f"topics_{split}"), choose(rng, "scope", f"topics_{split}")
    text = fill(
        template, t=topic, u=other, country=choose(rng, "scope", f"countries_{split}"), year=rng.randint(1500, 2020)
    )
    if rng.random() < 0.15:
        text = choose(rng, "openers", split) + text
    if rng.random() < 0.15:
        text += choose(rng, "closers", split)
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    messages: tuple[Message, ...] = (("user", text),)
    if rng.random() < 0.2:
        return (("system", choose(rng, "systems", split)), *messages)
    return messages


def generate_out_of_scope(seed: int, count: int, split: Split) -> Iterator[tuple[Message, ...]]:
    """Conversations to which `HONEST_REPLY` is the reply, the same for the same seed everywhere."""
    rng = random.Random(f"scope/{split}/{seed}")
    for _ in range(count):
        yield draw_out_of_scope(rng, split)
