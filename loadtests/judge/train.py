"""Fits the judge with torch, which the product never needs: `python -m loadtests.judge.train --help`."""

import hashlib
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from loadtests.judge.examples import Example, FamilyExamples, NearWords, blur, draw_examples
from loadtests.judge.network import Network
from router.cache.guard import Guard
from router.cache.guard.joining import TYPES, Joined, Joiner
from router.cache.guard.lexicon import Lexicon
from tests.cache.pairs import Family, Pair
from tests.cache.pairs.cleaning import read_clean

BATCH: Final = 64
CYCLE: Final = 100
HELD_OUT: Final = 15
SMOOTHING: Final = 0.02
TOKEN_WEIGHT: Final = 0.3
FOREIGN_SHARE: Final = 0.06
SMOOTHED: Final = 0.998
FALSE_RATES: Final = (0.001, 0.002, 0.005, 0.01)


def held_out(name: str, fold: int) -> bool:
    """Whether a family is only looked at; about one in seven, always the same ones."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 1000 // (10 * HELD_OUT) == fold


@dataclass(frozen=True, slots=True)
class Batch:
    ids: Tensor
    types: Tensor
    positions: Tensor
    mask: Tensor


def pad(rows: Sequence[Joined]) -> Batch:
    length = max(len(row.ids) for row in rows)
    ids, types, positions = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3))
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for at, row in enumerate(rows):
        width = len(row.ids)
        ids[at, :width] = torch.from_numpy(row.ids)
        types[at, :width] = torch.from_numpy(row.types)
        positions[at, :width] = torch.from_numpy(row.positions)
        mask[at, :width] = True
    return Batch(ids, types, positions, mask)


class Foreign:
    """Questions of other families that share words."""

    def __init__(self, families: Sequence[FamilyExamples]) -> None:
        self._families = families
        words = [set(re.findall(r"[a-z]{4,}", " ".join(one.family.phrasings).lower())) for one in families]
        counts = Counter(word for some in words for word in some)
        rare = {word: log(len(families) / count) for word, count in counts.items()}
        places = defaultdict(list)
        for at, some in enumerate(words):
            for word in some:
                places[word].append(at)
        self._near: list[list[int]] = []
        for at, some in enumerate(words):
            shared: Counter[int] = Counter()
            for word in some:
                if len(places[word]) < 60:
                    for other in places[word]:
                        shared[other] += rare[word]
            del shared[at]
            self._near.append([other for other, _ in shared.most_common(8)])

    def draw(self, draw: random.Random) -> Example | None:
        at = draw.randrange(len(self._families))
        if not self._near[at]:
            return None
        one, other = self._families[at], self._families[draw.choice(self._near[at])]
        asked, stored = (draw.choice(some.family.phrasings).format(**some.fill(draw)) for some in (one, other))
        return Example(blur(asked, draw), blur(stored, draw), False, "foreign")


def label_tokens(example: Example, joiner: Joiner, joined: Joined) -> list[float]:
    """1 where a token makes the difference, 0 where not, -1 where that is not known."""
    if example.changed is None:
        if not example.same:
            return [-1.0] * len(joined.ids)
    sides = []
    for text, changed in ((example.asked, example.changed[0]), (example.stored, example.changed[1])):
        read = joiner.read(text)
        sides.append([float(read.surface[word] in changed) for word in read.words])
    return [-1.0, *sides[0], -1.0, *sides[1], -1.0]


def batches(examples: Sequence[Example], joiner: Joiner, draw: random.Random) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    rows = []
    for example in examples:
        joined = joiner.join(example.asked, example.stored)
        if joined is not None:
            rows.append((joined, float(example.same), label_tokens(example, joiner, joined)))
    rows.sort(key=lambda row: len(row[0].ids) + draw.random())
    cuts = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    draw.shuffle(cuts)
    for cut in cuts:
        batch = pad([row[0] for row in cut])
        tokens = torch.full(batch.ids.shape, -1.0)
        for at, row in enumerate(cut):
            tokens[at, : len(row[2])] = torch.tensor(row[2])
        yield batch, torch.tensor([row[1] for row in cut]), tokens


def measure_loss(network: Network, batch: Batch, same: Tensor, tokens: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        verdict, difference = network(batch.ids, batch.types, batch.positions, batch.mask)
    loss = functional.binary_cross_entropy_with_logits(verdict, same * (1 - 2 * SMOOTHING) + SMOOTHING)
    known = tokens >= 0
    if known.any():
        loss = loss + TOKEN_WEIGHT * functional.binary_cross_entropy_with_logits(difference[known], tokens[known])
    return loss


@torch.no_grad()
def score(network: Network, pairs: Sequence[tuple[str, str]], joiner: Joiner) -> np.ndarray:
    """[pairs, 2]: the verdict and the strongest token's log-odds; -100, 100 for those too long."""
    found = np.tile(np.array([-100.0, 100.0]), (len(pairs), 1))
    rows = [(at, joined) for at, pair in enumerate(pairs) if (joined := joiner.join(*pair)) is not None]
    rows.sort(key=lambda row: len(row[1].ids))
    network.eval()
    for start in range(0, len(rows), BATCH):
        cut = rows[start : start + BATCH]
        batch = pad([joined for _, joined in cut])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            verdict, difference = network(batch.ids, batch.types, batch.positions, batch.mask)
        difference[~batch.mask] = -100.0
        found[[at for at, _ in cut]] = torch.stack([verdict, difference.max(dim=1).values], 1).numpy()
    network.train()
    return found


class Watch:
    """Pairs of held-out families, and how well scores tell them apart."""

    def __init__(self, families: Sequence[Family], fills: int) -> None:
        self.pairs: list[Pair] = []
        for family in families:
            same = list(family.paraphrases())
            keep = len(family.phrasings) * (len(family.phrasings) - 1) // 2 * fills
            self.pairs += [*same[:keep], *family.hard()]
        self.same = np.array([pair.kind is None for pair in self.pairs])
        guard = Guard()
        self.strict = np.array([guard.refuse(pair.asked, pair.stored) is None for pair in self.pairs])

    def texts(self) -> list[tuple[str, str]]:
        return [(pair.asked, pair.stored) for pair in self.pairs]

    def tell(self, scores: np.ndarray, name: str) -> str:
        """Recall where a share of the hard pairs passes."""
        wrong = np.sort(scores[~self.same])[::-1]
        lines = []
        for rate in FALSE_RATES:
            threshold = wrong[int(rate * len(wrong))]
            recall = (scores[self.same] > threshold).mean()
            both = ((scores > threshold) | self.strict)[self.same].mean()
            lines.append(f"{rate:.1%}: {recall:.1%} (+strict {both:.1%}) t={threshold:.2f}")
        return f"{name} " + "; ".join(lines)


@click.command()
@click.option("--base", type=click.Path(path_type=Path), required=True, help="Folder of all-MiniLM-L6-v2's files.")
@click.option("--parts", type=click.Path(path_type=Path), multiple=True, required=True, help="Files of families.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--start", type=click.Path(path_type=Path), help="Weights to go on from.")
@click.option("--minutes", type=float, default=20.0)
@click.option("--fold", type=int, default=0, help="Which families are held out; -1: none.")
@click.option("--rate", type=float, default=5e-4)
@click.option("--seed", type=int, default=1)
def main(base, parts, out, start, minutes, fold, rate, seed) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    draw = random.Random(seed)
    lexicon = Lexicon.load()
    joiner = Joiner.load(base / "tokenizer.json", lexicon)
    weights = load_file(base / "model.safetensors")
    near = NearWords(joiner.vocabulary(), weights["embeddings.word_embeddings.weight"].numpy(), lexicon)

    def read() -> list[Family]:
        return [family for part in parts for family in read_clean(part)]

    families = read()
    watch = Watch([one for one in families if held_out(one.name, fold)], 1)
    click.echo(f"{len(families)} families; watching {len(watch.pairs)} pairs, {watch.same.sum()} the same")
    network = Network(weights, TYPES)
    if start:
        network.load_state_dict(load_file(start))
    smooth = {name: value.detach().clone() for name, value in network.named_parameters()}
    thin = [p for name, p in network.named_parameters() if name.endswith((".up", ".down"))]
    fresh = [p for name, p in network.named_parameters() if name.split(".")[0] in {"types", "hidden", "verdict", "difference"}]
    rest = [p for p in network.parameters() if not any(p is q for q in (*thin, *fresh))]
    groups = [{"params": thin, "lr": rate}, {"params": fresh, "lr": 2 * rate}, {"params": rest, "lr": rate / 2}]
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    began, step, told = time.time(), 0, time.time()
    trained: list[FamilyExamples] = []
    while time.time() - began < 60 * minutes:
        if step % (6 * CYCLE) == 0:
            trained = [FamilyExamples(one, near, lexicon) for one in read() if not held_out(one.name, fold)]
            foreign = Foreign(trained)
        examples = draw_examples(trained, int(BATCH * CYCLE * (1 - FOREIGN_SHARE)), draw)
        examples += [one for _ in range(int(BATCH * CYCLE * FOREIGN_SHARE)) if (one := foreign.draw(draw))]
        draw.shuffle(examples)
        losses = []
        for batch, same, tokens in batches(examples, joiner, draw):
            gone = (time.time() - began) / (60 * minutes)
            share = min(1.0, (step + 1) / 100) * min(1.0, max(0.02, (1 - gone) / 0.5))
            for group, one in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = one * share
            loss = measure_loss(network, batch, same, tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            losses.append(loss.item())
            decay = min(SMOOTHED, step / (step + 10))
            with torch.no_grad():
                for name, value in network.named_parameters():
                    smooth[name].lerp_(value, 1 - decay)
            if gone >= 1:
                break
        click.echo(f"{time.strftime('%H:%M:%S')} step {step}, families {len(trained)}, loss {np.mean(losses):.4f}")
        if time.time() - told > 240 or time.time() - began >= 60 * minutes:
            told = time.time()
            kept = {name: value.detach().clone() for name, value in network.named_parameters()}
            network.load_state_dict(smooth)
            out.parent.mkdir(parents=True, exist_ok=True)
            save_file(smooth, out)
            scores = score(network, watch.texts(), joiner)
            click.echo(watch.tell(scores[:, 0], "verdict"))
            click.echo(watch.tell(scores[:, 0] - scores[:, 1], "with tokens"))
            network.load_state_dict(kept)


if __name__ == "__main__":
    main()
