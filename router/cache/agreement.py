"""
Whether two answers to one question say the same: what an audit of a semantic hit rests on. Pure.

It knows English words for yes, no and not, and numbers in Western digits. It takes "4" and "four" for different, and
two right answers of which one alone gives the numbers of its steps; that overstates the false-hit rate, the safe side.
It misses an answer that is wrong in a single name within a long text, or beyond what the embedding model reads. An
answer sampled at a temperature may differ from itself: such targets look worse than they are.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Final

__all__ = ["ALIKE", "Agreement", "agree"]

ALIKE: Final = 0.85
"""Cosine from which two texts of the same numbers and polarity are taken to say the same; chosen, not calibrated."""


_PLAIN: Final = {0x2019: "'", 0x2212: "-"}
_MARKED: Final = re.compile(r"\b(?:final answer|answer)(?: is)?\s*[:=]\s*|\bthe (?:final )?answer is\s+|\\boxed\{")
_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_LIST_MARK: Final = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
_YES: Final = frozenset({"yes", "true", "correct", "right", "yeah", "yep", "certainly"})
_NO: Final = frozenset({"no", "false", "incorrect", "wrong", "nope"})
_NEGATION: Final = re.compile(r"\b(?:not|never|no|none|nor|neither|without|cannot|can't|[a-z]+n't)\b")
_WORD: Final = re.compile(r"\w+")
_FINAL_WORDS: Final = 12
_OPTION: Final = re.compile(r"\(?([a-h])(?:\)|[.:](?=\s|$)|$)")


class Agreement(StrEnum):
    """What the words alone tell; what they leave unclear is for the vectors to tell."""

    SAME = "same"
    DIFFERENT = "different"
    UNCLEAR = "unclear"


def agree(served: str, fresh: str) -> Agreement:
    """Compare what was served with a fresh answer to the question asked.

    Equal but for case, spacing and end marks: SAME. Marked final answers ("Answer: ...") decide where both have one,
    else a leading yes or no, the letter of an option, all numbers, and negation: each difference is DIFFERENT. A short
    answer that stands in the other is SAME. UNCLEAR: take the cosine of both, and `ALIKE`.
    """
    first, second = _normalize(served), _normalize(fresh)
    if first == second:
        return Agreement.SAME
    final, other = _final(first), _final(second)
    if final and other:
        return _compare_short(final, other)
    return _compare(first, second)


def _compare_short(first: str, second: str) -> Agreement:
    return Agreement.SAME if _spell(first) == _spell(second) else Agreement.DIFFERENT


def _compare(first: str, second: str) -> Agreement:
    facts = (_verdict, _option, _numbers, _negated)
    if any(fact(first) != fact(second) for fact in facts):
        return Agreement.DIFFERENT
    if _spell(first) == _spell(second):
        return Agreement.SAME
    short, long = sorted((_WORD.findall(first), _WORD.findall(second)), key=len)
    if 0 < len(short) <= _FINAL_WORDS and _contains(long, short):
        return Agreement.SAME
    return Agreement.UNCLEAR


def _normalize(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_PLAIN)
    return "\n".join(" ".join(line.split()) for line in plain.strip().splitlines()).strip(" .!\n")


def _final(text: str) -> str:
    """What follows the last mark of an answer, up to the end of its line; empty without one, or when it is long."""
    marks = list(_MARKED.finditer(text))
    if not marks:
        return ""
    line = text[marks[-1].end() :].split("\n", 1)[0].strip(" .!*}$")
    return line if len(line.split()) <= _FINAL_WORDS else ""


def _numbers(text: str) -> frozenset[float]:
    """Which numbers it has, by value; the marks of a list are none."""
    return frozenset(map(_value, _NUMBER.findall(_LIST_MARK.sub("", text))))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _spell(text: str) -> str:
    """With all numbers written alike: 1,000 and 1000.0 are one."""
    return " ".join(_NUMBER.sub(lambda found: repr(_value(found.group())), text).split())


def _verdict(text: str) -> bool | None:
    """A yes or a no that it begins with."""
    word = next(iter(_WORD.findall(text[:40])), "")
    return True if word in _YES else False if word in _NO else None


def _option(text: str) -> str | None:
    found = _OPTION.match(text)
    return found.group(1) if found else None


def _negated(text: str) -> bool:
    return bool(_NEGATION.search(text))


def _contains(words: list[str], part: list[str]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))
