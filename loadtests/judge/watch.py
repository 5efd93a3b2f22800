"""How well a network tells pairs of families apart that it was not fitted to, behind the facts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from loadtests.judge.batches import BATCH, pad
from loadtests.judge.network import Network
from router.cache.guard import Guard
from router.cache.guard.joining import Joiner
from tests.cache.pairs import Family, Pair

FALSE_RATES: Final = (0.0005, 0.001, 0.002, 0.005, 0.01)
_FILLS: Final = 2
NEVER: Final = -100.0
KIN: Final = 0.6
"""Share of the words of two families' first wordings from which on they ask almost the same."""
_WORD, _SLOT = re.compile(r"\w+"), re.compile(r"\{\w+\}")

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Watched:
    """Pairs; `strict`: rules explain them, `barred`: facts tell them apart."""

    pairs: list[Pair]
    same: NDArray[np.bool_]
    strict: NDArray[np.bool_]
    barred: NDArray[np.bool_]

    def tell(self, scores: Scores) -> str:
        """Recall where a share of the hard pairs passes, rules and facts included."""
        shown = []
        for rate in FALSE_RATES:
            threshold = self.find_threshold(scores, rate)
            passed = self.passed(scores, threshold)
            recall, false = passed[self.same].mean(), passed[~self.same].mean()
            shown.append(f"{rate:.2%}: {recall:.1%} (t {threshold:.2f}, false {false:.2%})")
        return "; ".join(shown)

    def find_threshold(self, scores: Scores, rate: float) -> float:
        """The lowest log-odds at which no more than that share of the hard pairs passes by the network's word."""
        hard = np.sort(np.where(self.barred, NEVER, scores)[~self.same])[::-1]
        return float(hard[int(rate * len(hard))]) + 1e-6

    def passed(self, scores: Scores, threshold: float, veto: float = NEVER) -> NDArray[np.bool_]:
        """What the guard lets pass."""
        found: NDArray[np.bool_] = np.where(self.strict, scores >= veto, ~self.barred & (scores >= threshold))
        return found

    def count_false(self, passed: NDArray[np.bool_]) -> Counter[str | None]:
        """Hard pairs that pass, by kind."""
        return Counter(pair.kind for pair, hit in zip(self.pairs, passed & ~self.same, strict=True) if hit)


def drop_kin(families: Sequence[Family], fitted: Sequence[Family]) -> list[Family]:
    """Those of which no fitted family asks almost the same: people think of the same questions."""
    known = [_core(family) for family in fitted]
    return [one for one in families if not any(_overlap(_core(one), other) >= KIN for other in known)]


def _core(family: Family) -> frozenset[str]:
    return frozenset(_WORD.findall(_SLOT.sub(" ", family.phrasings[0]).lower()))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def watch(families: Sequence[Family]) -> Watched:
    """Pairs of families: all hard ones, paraphrases of a few fillings."""
    pairs: list[Pair] = []
    for family in families:
        most = len(family.phrasings) * (len(family.phrasings) - 1) // 2 * _FILLS
        pairs += [*list(family.paraphrases())[:most], *family.hard()]
    guard = Guard()
    refusals = [guard.refuse(pair.asked, pair.stored) for pair in pairs]
    barred = [
        refusal is not None and guard.find_fact(pair.asked, pair.stored, refusal) is not None
        for pair, refusal in zip(pairs, refusals, strict=True)
    ]
    return Watched(
        pairs,
        np.array([pair.kind is None for pair in pairs]),
        np.array([refusal is None for refusal in refusals]),
        np.array(barred),
    )


def score(network: Network, pairs: Sequence[tuple[str, str]], joiner: Joiner, *, exact: bool = False) -> Scores:
    """Log-odds that each pair asks the same, in that order; `NEVER` for those too long to say."""
    found = np.full(len(pairs), NEVER)
    rows = [(at, joined) for at, pair in enumerate(pairs) if (joined := joiner.join(*pair)) is not None]
    rows.sort(key=lambda row: len(row[1].ids))
    network.eval()
    for start in range(0, len(rows), BATCH):
        cut = rows[start : start + BATCH]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not exact):
            same, _ = network(pad([joined for _, joined in cut], joiner.separators))
        found[[at for at, _ in cut]] = same.numpy()
    network.train()
    return found
