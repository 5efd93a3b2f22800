"""
Fits the judge with torch, which the product never needs: `python -m loadtests.judge.train --help`.

The last part of the time lowers the rate of learning. What is written is a running mean of the weights.
"""

import hashlib
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from loadtests.judge.batches import BATCH, UNKNOWN, Lesson, make_lessons
from loadtests.judge.examples import FamilyExamples, Foreign, draw_examples
from loadtests.judge.near_words import NearWords
from loadtests.judge.network import Network
from loadtests.judge.watch import Watched, drop_kin, score, watch
from router.cache.guard.joining import TYPES, Joiner
from router.cache.guard.lexicon import Lexicon
from tests.cache.pairs import TUNED, Family, read_families

CYCLE: Final = 100
"""Batches that are drawn together."""
HELD_OUT_PERCENT: Final = 15
SMOOTHING, TOKEN_WEIGHT, STEEPEST = 0.02, 0.3, 1.0
REMEMBERED: Final = 0.998
WARM_UP, FALLING = 100, 0.5
_SHOW_S, _SHOWN = 480.0, 6
"""How often a sixth of the families that are held out is looked at; that costs as much as learning."""


def is_held_out(name: str, fold: int) -> bool:
    """Whether a family is only looked at in this fold, always the same ones; no family in fold -1."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 1000 // (10 * HELD_OUT_PERCENT) == fold


def split(fold: int) -> tuple[list[Family], list[Family]]:
    """Families to learn from, and those to look at."""
    families = [family for part in TUNED for family in read_families(part)]
    known = [family for family in families if not is_held_out(family.name, fold)]
    return known, drop_kin([family for family in families if is_held_out(family.name, fold)], known)


def measure_loss(network: Network, lesson: Lesson) -> Tensor:
    """Cross entropy of the verdicts, and of the tokens where it is known whether they make the difference."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same, differs = network(lesson.batch)
    wanted = lesson.same * (1 - 2 * SMOOTHING) + SMOOTHING
    loss = functional.binary_cross_entropy_with_logits(same, wanted)
    known = lesson.differs != UNKNOWN
    return loss + TOKEN_WEIGHT * functional.binary_cross_entropy_with_logits(differs[known], lesson.differs[known])


class Training:
    """A network that learns until its time is over."""

    def __init__(
        self, network: Network, joiner: Joiner, watched: Watched, out: Path, *, minutes: float, rate: float
    ) -> None:
        self._network, self._joiner, self._watched, self._out = network, joiner, watched, out
        self._began = time.time()
        self._until = self._began + 60 * minutes
        self._steps = 0
        self._mean = {name: value.detach().clone() for name, value in network.named_parameters()}
        paces: dict[float, list[Tensor]] = defaultdict(list)
        for name, value in network.named_parameters():
            paces[_pace(name)].append(value)
        groups = [{"params": some, "lr": rate * pace, "full": rate * pace} for pace, some in paces.items()]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)

    def run(self, families: Sequence[FamilyExamples], draw: random.Random) -> None:
        """Draw and learn; now and then show how far it is."""
        foreign, shown = Foreign(families), time.time()
        while time.time() < self._until:
            losses = []
            for lesson in make_lessons(draw_examples(families, foreign, BATCH * CYCLE, draw), self._joiner, draw):
                losses.append(self.learn(lesson))
                if time.time() >= self._until:
                    break
            click.echo(f"{time.strftime('%H:%M:%S')} step {self._steps}, loss {np.mean(losses):.4f}")
            if time.time() - shown > _SHOW_S or time.time() >= self._until:
                shown = time.time()
                self.show()

    def learn(self, lesson: Lesson) -> float:
        """One step."""
        left = (self._until - time.time()) / (self._until - self._began)
        pace = min(1.0, (self._steps + 1) / WARM_UP, max(0.01, left / FALLING))
        for group in self._optimizer.param_groups:
            group["lr"] = group["full"] * pace
        loss = measure_loss(self._network, lesson)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), STEEPEST)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        share = 1 - min(REMEMBERED, self._steps / (self._steps + 10))
        with torch.no_grad():
            for name, value in self._network.named_parameters():
                self._mean[name].lerp_(value, share)
        return float(loss.item())

    def show(self) -> None:
        """Write the mean of the weights, and say how well they do."""
        current = {name: value.detach().clone() for name, value in self._network.named_parameters()}
        self._network.load_state_dict(self._mean)
        save_file(self._mean, self._out)
        if self._watched.pairs:
            click.echo(
                self._watched.tell(
                    score(self._network, [(p.asked, p.stored) for p in self._watched.pairs], self._joiner)
                )
            )
        self._network.load_state_dict(current)


def _pace(name: str) -> float:
    """What is new learns faster than what MiniLM knows."""
    if name.startswith(("types", "hidden.", "verdict.", "difference.")):
        return 2.0
    return 1.0 if name.endswith((".up", ".down")) else 0.5


@click.command(context_settings={"show_default": True})
@click.option("--base", type=click.Path(path_type=Path), required=True, help="Folder of all-MiniLM-L6-v2's files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the fitted weights go.")
@click.option("--start", type=click.Path(path_type=Path), help="Fitted weights to go on from.")
@click.option("--minutes", type=float, default=60.0, help="How long to learn, on one core.")
@click.option("--fold", type=int, default=0, help="Which families are held out; -1: none.")
@click.option("--rate", type=float, default=5e-4, help="Of learning.")
@click.option("--seed", type=int, default=1)
def main(base: Path, out: Path, start: Path | None, minutes: float, fold: int, rate: float, seed: int) -> None:
    """Fit the judge to families of questions."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    lexicon = Lexicon.load()
    joiner = Joiner.load(base / "tokenizer.json", lexicon)
    weights = load_file(base / "model.safetensors")
    near = NearWords(joiner.vocabulary(), weights["embeddings.word_embeddings.weight"].numpy(), lexicon)
    known, unseen = split(fold)
    click.echo(f"{len(known)} families to learn from, {len(unseen)} to look at")
    watched = watch(unseen[::_SHOWN])
    fitted = [FamilyExamples(family, near, lexicon) for family in known]
    network = Network(weights, TYPES)
    if start:
        network.load_state_dict(load_file(start))
    Training(network, joiner, watched, out, minutes=minutes, rate=rate).run(fitted, random.Random(seed))


if __name__ == "__main__":
    main()
