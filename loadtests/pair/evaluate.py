"""Measures a checkpoint: `python -m loadtests.pair.evaluate edge/demo --count 2000 --seed 7`."""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from loadtests.pair.checkpoint import load_checkpoint
from loadtests.pair.conversation import encode_prompt
from loadtests.pair.model import Decoder, KeysValues
from loadtests.pair.questions import (
    HONEST_REPLY,
    Kind,
    Message,
    Question,
    Split,
    generate,
    generate_out_of_scope,
    is_correct,
)
from loadtests.pair.tokenizer import END

ROWS = 250
LONGEST_REPLY = 220

Tally = dict[Kind, dict[int, list[bool]]]


def reply_all(model: Decoder, tokenizer: Tokenizer, conversations: Sequence[tuple[Message, ...]]) -> list[str]:
    """Greedy replies, decoded in batches of prompts of similar length."""
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    replies = [""] * len(prompts)
    end = tokenizer.token_to_id(END)
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        for index, ids in zip(chosen, _decode(model, [prompts[index] for index in chosen], end), strict=True):
            replies[index] = tokenizer.decode(ids)
    return replies


def _decode(model: Decoder, prompts: list[list[int]], end: int | None) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    with torch.inference_mode():
        for rows, tokens in islice(_steps(model, prompts, end), LONGEST_REPLY):
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                if token != end:
                    written[row].append(token)
    return written


def _steps(model: Decoder, prompts: list[list[int]], end: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the rows still running and the token each writes; prompts are padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    seen = torch.tensor([[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    positions = (seen.long().cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    states, past = model.hidden(ids, positions, seen[:, None, None, :] & causal)
    rows, last = torch.arange(len(prompts)), positions[:, -1:]
    while True:
        tokens = model.logits(states[:, -1]).argmax(-1)
        yield rows, tokens
        going = tokens != end
        if not going.any():
            return
        if not going.all():
            rows, tokens, last, seen = rows[going], tokens[going], last[going], seen[going]
            past = [_keep(layer, going) for layer in past]
        last = last + 1
        seen = torch.cat((seen, torch.ones(len(rows), 1, dtype=torch.bool)), 1)
        states, past = model.hidden(tokens[:, None], last, seen[:, None, None, :], past)


def _keep(layer: KeysValues, going: Tensor) -> KeysValues:
    return layer[0][going], layer[1][going]


def tally(questions: Sequence[Question], replies: Sequence[str]) -> Tally:
    """Whether each reply was right, by kind and difficulty."""
    found: Tally = {kind: defaultdict(list) for kind in Kind}
    for question, reply in zip(questions, replies, strict=True):
        found[question.kind][question.difficulty].append(is_correct(question, reply))
    return found


def print_table(found: Tally) -> None:
    """One line a kind: count, accuracy, accuracy by difficulty."""
    everything = [right for levels in found.values() for rights in levels.values() for right in rights]
    print(f"{'all':15} {len(everything):5} {mean(everything):.3f}")
    for kind, levels in found.items():
        rights = [right for level in levels.values() for right in level]
        if rights:
            graded = "  ".join(f"{level}:{mean(levels[level]):.2f}" for level in sorted(levels))
            print(f"{kind:15} {len(rights):5} {mean(rights):.3f}   {graded}")


def print_wrong(questions: Sequence[Question], replies: Sequence[str], count: int) -> None:
    """Some wrong replies beside what was asked."""
    pairs = zip(questions, replies, strict=True)
    wrong = ((question, reply) for question, reply in pairs if not is_correct(question, reply))
    for question, reply in islice(wrong, count):
        print(f"--- {question.kind} {question.difficulty} {question.messages[-1][1]!r}")
        print(f"wanted {question.working!r} {question.answer!r}\ngot    {reply!r}")


def mean(rights: Sequence[bool]) -> float:
    """The share that is true."""
    return sum(rights) / len(rights)


def main() -> None:
    """Prints the table of one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--split", type=Split, default=Split.TEST)
    parser.add_argument("--show-wrong", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load_checkpoint(arguments.checkpoint)
    questions = list(generate(arguments.seed, arguments.count, arguments.split))
    replies = reply_all(model, tokenizer, [question.messages for question in questions])
    print_table(tally(questions, replies))
    others = list(generate_out_of_scope(arguments.seed, arguments.count // 10, arguments.split))
    honest = [reply == HONEST_REPLY for reply in reply_all(model, tokenizer, others)]
    print(f"{'out of scope':15} {len(honest):5} {mean(honest):.3f}")
    print_wrong(questions, replies, arguments.show_wrong)


if __name__ == "__main__":
    main()
