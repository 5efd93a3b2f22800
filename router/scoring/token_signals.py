"""What the edge's own log-probabilities say about its answer. All are natural logs, nearer to 0 is surer."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from router.query import TokenLogprob

Vector = np.ndarray[Any, np.dtype[np.float64]]
MAX_TOKENS = 256
_FLOOR = -20.0
_PLACES = 4
_DIGIT = re.compile(r"\d")


def read_token_signals(tokens: Sequence[TokenLogprob]) -> dict[str, float]:
    """Signals by name, of at most 256 tokens from both ends; empty where there are none."""
    if len(tokens) > MAX_TOKENS:
        tokens = (*tokens[: MAX_TOKENS // 2], *tokens[-MAX_TOKENS // 2 :])
    if not tokens:
        return {}
    chosen = [max(_FLOOR, token.logprob) for token in tokens]  # in this order a NaN becomes the floor
    signals = {"token_count": math.log1p(len(tokens)), **_levels(chosen), **_places(tokens, chosen)}
    if any(token.top for token in tokens):
        signals |= _rivals(tokens)
    return signals


def _levels(chosen: list[float]) -> dict[str, float]:
    ordered = sorted(chosen)
    lowest = ordered[:_PLACES] + [0.0] * (_PLACES - len(ordered))
    total = sum(chosen)
    return {
        "logprob_mean": total / len(chosen),
        "logprob_sum": max(total, 2 * _FLOOR),
        "doubt": _log_odds_of_doubt(total),
        "logprob_lowest": lowest[0],
        "logprob_second_lowest": lowest[1],
        "logprob_third_lowest": lowest[2],
        "logprob_decile": ordered[len(ordered) // 10],
        "logprob_quartile": ordered[len(ordered) // 4],
        "doubtful_tokens": math.log1p(sum(one < -0.5 for one in chosen)),
        "lowest_place": chosen.index(ordered[0]) / len(chosen),
    }


def _log_odds_of_doubt(total: float) -> float:
    """Log-odds that the model would have answered otherwise: 1 - exp(sum of log-probabilities), as a logit."""
    said = min(max(math.exp(total), 1e-4), 1 - 1e-4)
    return math.log((1 - said) / said)


def _places(tokens: Sequence[TokenLogprob], chosen: list[float]) -> dict[str, float]:
    signals = {f"logprob_at_{place}": chosen[place] if place < len(chosen) else 0.0 for place in range(_PLACES)}
    signals["logprob_last"] = chosen[-1]
    numeric = [value for token, value in zip(tokens, chosen, strict=True) if _DIGIT.search(token.token)]
    if numeric:
        signals["number_logprob_lowest"] = min(numeric)
        signals["number_doubt"] = _log_odds_of_doubt(sum(numeric))
    return signals


def _rivals(tokens: Sequence[TokenLogprob]) -> dict[str, float]:
    margins = [_margin(token) for token in tokens]
    entropies = _entropies([token for token in tokens if token.top])
    return {
        "margin_mean": sum(margins) / len(margins),
        "margin_lowest": min(margins),
        "margin_first": margins[0],
        "entropy_mean": float(entropies.mean()),
        "entropy_highest": float(entropies.max()),
        "entropy_first": float(entropies[0]),
        "outvoted_tokens": math.log1p(sum(margin < 0 for margin in margins)),
    }


def _margin(token: TokenLogprob) -> float:
    """How far the token leads the likeliest other one."""
    best = _FLOOR
    for top in token.top:
        if top.logprob > best and top.token != token.token:
            best = top.logprob
    return max(_FLOOR, token.logprob) - best


def _entropies(tokens: Sequence[TokenLogprob]) -> Vector:
    """Entropy in nats at each place, over the listed tokens and one more that stands for all the others."""
    starts = np.cumsum([0, *(len(token.top) for token in tokens[:-1])])
    listed = np.nan_to_num([top.logprob for token in tokens for top in token.top], nan=_FLOOR).clip(_FLOOR, 0.0)
    chances = np.exp(listed)
    others = np.maximum(1.0 - np.add.reduceat(chances, starts), 1e-9)
    entropies: Vector = -np.add.reduceat(chances * listed, starts) - others * np.log(others)
    return entropies
