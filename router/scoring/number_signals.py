"""
The numbers of a question and of its answer: which were used, in which sums, whether those hold, and what came out last.
A good solution uses what is given, once, computes right, goes on with its results, and ends on the last of them.
"""

import math
from collections import Counter
from collections.abc import Container, Sequence
from itertools import pairwise

from router.scoring.arithmetic import Claim, Number, read_claims, read_last_number, read_numbers

_SIGNS = {"signs_plus": "+", "signs_minus": "-", "signs_times": "*", "signs_over": "/"}
_SPELT = {
    "half": 2.0, "twice": 2.0, "double": 2.0, "both": 2.0, "pair": 2.0, "two": 2.0, "one": 1.0, "single": 1.0,
    "third": 3.0, "triple": 3.0, "thrice": 3.0, "three": 3.0, "quarter": 4.0, "fourth": 4.0, "four": 4.0, "five": 5.0,
    "fifth": 5.0, "six": 6.0, "seven": 7.0, "week": 7.0, "eight": 8.0, "nine": 9.0, "ten": 10.0, "dozen": 12.0,
    "twelve": 12.0, "twenty": 20.0, "thirty": 30.0, "hundred": 100.0, "percent": 100.0,
}  # fmt: skip


def read_number_signals(question: str, text: str, asked: Sequence[str]) -> dict[str, float]:
    """Signals by name; those of the last number are absent where the answer has no number. `asked` are the question's
    words, in lower case."""
    given, numbers = read_numbers(question), read_numbers(text)
    said = set(numbers)
    spelt = [_SPELT[word] for word in asked if word in _SPELT]
    claims = read_claims(text)
    signals = {
        "numbers_given": math.log1p(len(given)),
        "numbers_spelt": math.log1p(len(spelt)),
        "numbers_said": math.log1p(len(numbers)),
        "given_unsaid": _share_missing(given, said),
        "spelt_unsaid": _share_missing(spelt, said),
        **_uses(given, spelt, claims),
        **_results(claims),
        "equations_unread": math.log1p(max(text.count("=") - text.count("<<") - len(claims), 0)),
    }
    if last := read_last_number(text):
        signals |= _last(last, given, claims)
    return signals


def _share_missing(wanted: Sequence[float], found: Container[float]) -> float:
    return sum(number not in found for number in wanted) / len(wanted) if wanted else 0.0


def _uses(given: Sequence[float], spelt: Sequence[float], claims: Sequence[Claim]) -> dict[str, float]:
    operands = [operand for claim in claims for operand in claim.operands]
    used, offered = Counter(operands), Counter([*given, *spelt])
    known, strange = {*offered, 1.0, 100.0}, 0
    for claim in claims:
        strange += sum(operand not in known for operand in claim.operands)
        known |= {claim.said, claim.value}
    place = {number: index for index, number in reversed(list(enumerate(given)))}
    places = [place[operand] for operand in operands if operand in place]
    backwards = sum(before > after for before, after in pairwise(places))
    return {
        "given_uncomputed": _share_missing(given, used),
        "given_reused": math.log1p(sum(max(used[number] - offered[number], 0) for number in set(given))),
        "given_out_of_order": backwards / max(len(places) - 1, 1),
        "operands_strange": math.log1p(strange),
        "operands_per_given": math.log((1 + len(operands)) / (1 + len(given) + len(spelt))),
        "claims_per_given": math.log((1 + len(claims)) / (1 + len(given) + len(spelt))),
    }


def _results(claims: Sequence[Claim]) -> dict[str, float]:
    results = [claim.said for claim in claims]
    operands = {operand for claim in claims for operand in claim.operands}
    signs = "".join(claim.operators for claim in claims)
    wrong = sum(not claim.holds for claim in claims)
    return {
        "claims": math.log1p(len(claims)),
        "claims_wrong": math.log1p(wrong),
        "claims_all_right": float(bool(claims) and not wrong),
        "claim_longest": math.log1p(max((len(claim.operands) for claim in claims), default=0)),
        "results_unused": math.log1p(len({*results[:-1]} - operands)),
        "results_fractional": math.log1p(sum(result != int(result) for result in results)),
        "results_negative": math.log1p(sum(claim.value < 0 for claim in claims)),
        "result_largest": min(math.log10(1 + max(map(abs, results), default=0.0)), 12.0),
        "ends_on_previous": float(len(claims) > 1 and results[-2] in claims[-1].operands),
        **{name: math.log1p(signs.count(sign)) for name, sign in _SIGNS.items()},
    }


def _last(number: Number, given: Sequence[float], claims: Sequence[Claim]) -> dict[str, float]:
    """The last number in an answer is most often what it answers."""
    last = number.value
    results = [claim.said for claim in claims]
    ratio = math.log10((1 + last) / (1 + max(given, default=0.0)))
    return {
        "last_magnitude": min(math.log10(1 + last), 12.0),
        "last_to_given": max(min(ratio, 6.0), -6.0),
        "last_whole": float(last == int(last)),
        "last_with_point": float(number.decimals > 0),
        "last_negative": float(number.negative),
        "last_zero": float(last == 0),
        "last_round": float(last != 0 and last % 10 == 0),
        "last_given": float(last in given),
        "last_is_last_result": float(bool(results) and last == results[-1]),
        "last_is_a_result": float(last in results),
    }
