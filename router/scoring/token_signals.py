"""What the edge's own log-probabilities say about its answer. All are natural logs, nearer to 0 is surer."""

import math
from collections.abc import Sequence

from router.query import TokenLogprob

MAX_TOKENS = 512
_FLOOR = -20.0
_PLACES = 4


def read_token_signals(tokens: Sequence[TokenLogprob]) -> dict[str, float]:
    """Signals of an answer's first 512 tokens; empty where there are none."""
    tokens = [token for token in tokens[:MAX_TOKENS] if token.token]
    if not tokens:
        return {}
    chosen = [max(token.logprob, _FLOOR) for token in tokens]
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
    numeric = [value for token, value in zip(tokens, chosen, strict=True) if any(c.isdigit() for c in token.token)]
    if numeric:
        signals["number_logprob_lowest"] = min(numeric)
        signals["number_doubt"] = _log_odds_of_doubt(sum(numeric))
    return signals


def _rivals(tokens: Sequence[TokenLogprob]) -> dict[str, float]:
    margins, entropies, outvoted = [], [], 0
    for token in tokens:
        rivals = [top.logprob for top in token.top if top.token != token.token]
        margins.append(max(token.logprob, _FLOOR) - max(max(rivals, default=_FLOOR), _FLOOR))
        outvoted += margins[-1] < 0
        entropies.append(_entropy(token))
    return {
        "margin_mean": sum(margins) / len(margins),
        "margin_lowest": min(margins),
        "margin_first": margins[0],
        "entropy_mean": sum(entropies) / len(entropies),
        "entropy_highest": max(entropies),
        "entropy_first": entropies[0],
        "outvoted_tokens": math.log1p(outvoted),
    }


def _entropy(token: TokenLogprob) -> float:
    """Entropy in nats over the listed tokens and one more that stands for all the others."""
    chances = [math.exp(top.logprob) for top in token.top]
    chances.append(max(1.0 - sum(chances), 0.0))
    return -sum(chance * math.log(chance) for chance in chances if chance > 1e-9)
