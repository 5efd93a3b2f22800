"""Conversations as token ids: ChatML, and which of the tokens a model is trained to write."""

import random
from enum import StrEnum

from tokenizers import Tokenizer

from loadtests.pair.questions import ANSWER_MARK, HONEST_REPLY, KINDS, Kind, Message, Question, Split, make_question
from loadtests.pair.questions.dialogue import ACKNOWLEDGEMENT
from loadtests.pair.questions.scope import draw_out_of_scope

OUT_OF_SCOPE_SHARE = 0.08
EARLIER_SHARE = 0.06
# Kinds that are learnt late are drawn more often in training; a kind not named here counts 1.
TRAINING_WEIGHTS = {
    Kind.RECALL: 4.0,
    Kind.STORY: 3.0,
    Kind.SUBTRACTION: 3.0,
    Kind.SORT: 3.0,
    Kind.SEQUENCE: 2.0,
    Kind.ADDITION: 2.0,
    Kind.TOTAL: 2.0,
}


class Tier(StrEnum):
    """Which model of the pair."""

    EDGE = "edge"
    CLOUD = "cloud"


def write_reply(question: Question, tier: Tier) -> str:
    """The edge says the answer only; the cloud writes its working first."""
    if tier is Tier.EDGE:
        return question.answer
    working = f"{question.working}\n" if question.working else ""
    return f"{working}{ANSWER_MARK} {question.answer}"


def draw_conversation(rng: random.Random, tier: Tier) -> tuple[Message, ...]:
    """A training conversation with its reply, now and then after an exchange it has nothing to do with."""
    conversation = _draw_exchange(rng, tier)
    if rng.random() < EARLIER_SHARE:
        earlier = _draw_exchange(rng, rng.choice(tuple(Tier)))
        return (*earlier, *(message for message in conversation if message[0] != "system"))
    return conversation


def _draw_exchange(rng: random.Random, tier: Tier) -> tuple[Message, ...]:
    if rng.random() < OUT_OF_SCOPE_SHARE:
        return (*draw_out_of_scope(rng, Split.TRAIN), ("assistant", HONEST_REPLY))
    (kind,) = rng.choices(tuple(KINDS), [TRAINING_WEIGHTS.get(kind, 1.0) for kind in KINDS])
    question = make_question(rng, kind, Split.TRAIN)
    return (*question.messages, ("assistant", write_reply(question, tier)))


def encode_prompt(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> list[int]:
    """What the model reads before it replies: the chat template with a generation prompt."""
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    ids: list[int] = tokenizer.encode(f"{text}<|im_start|>assistant\n").ids
    return ids


def encode_conversation(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is learnt: the last reply and every acknowledgement, end marks too."""
    ids: list[int] = []
    learnt: list[bool] = []
    for place, (role, content) in enumerate(messages):
        head = tokenizer.encode(f"<|im_start|>{role}\n").ids
        body = tokenizer.encode(f"{content}<|im_end|>").ids
        ids += [*head, *body, *tokenizer.encode("\n").ids]
        written = role == "assistant" and (place == len(messages) - 1 or content == ACKNOWLEDGEMENT)
        learnt += [False] * len(head) + [written] * len(body) + [False]
    return ids, learnt
