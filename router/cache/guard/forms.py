"""What two questions must have in common on their face, whatever their words mean: form, tense, codes, places of words.

These checks know no vocabulary but English function words. They only ever refuse, before the words are compared.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from router.cache.guard.refusal import Refusal
from router.cache.guard.words import PASTS

_WORD: Final = re.compile(r"[^\W_]+(?:-[^\W_]+)*|'s\b|'ll\b|'ve\b|n't\b")
_CODE: Final = re.compile(r"(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])[^\W_]+(?:-[^\W_]+)*")
_ORDINAL: Final = re.compile(r"\d+(?:st|nd|rd|th|s)")
_ED: Final = re.compile(r"\w{2,}ed")
_MOST_MOVED: Final = 6
_SENTENCE: Final = re.compile(r"[.!?;]\s+|,\s+(?=(?:when|where|who|whom|why|how|which|what|to whom)\b)")
_POLITE: Final = re.compile(
    r"(?:^|(?<=[.!?,;] ))(?:(?:can|could|would|will|do|may|might) (?:you|i)(?: please| kindly| possibly)? "
    r"(?:tell|explain|give|show|know|help|say|describe|list|find|ask|let|remind|share|mind|be able)\b)"
)
_FUTURE: Final = frozenset({"will", "'ll", "shall", "won't"})
_PAST: Final = frozenset({"did", "was", "were", "had", "didn't", "wasn't", "weren't", "hadn't"})
_PERFECT: Final = frozenset({"has", "have", "'ve", "hasn't", "haven't"})
_PARTICIPLE: Final = re.compile(r"(?:been|had|done|gone|made|taken|given|seen|got|become|begun|come|known|\w{2,}ed)")
_HELPERS: Final = frozenset(
    {"is", "are", "am", "was", "were", "do", "does", "did", "has", "have", "had", "will", "would", "can", "could"}
    | {"shall", "should", "may", "might", "must", "isn't", "aren't", "doesn't", "don't", "didn't", "won't"}
)
_ASKS: Final = {
    "when": "when", "where": "where", "who": "who", "whom": "who", "whose": "whose", "why": "why", "how": "how",
    "which": "which", "what": "what",
}  # fmt: skip


class Tense(StrEnum):
    """When what is asked about takes place; keywords without a verb count as present."""

    PAST = "past"
    PERFECT = "perfect"
    PRESENT = "present"
    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class Form:
    """One question's face. `polar`: it wants a yes or no."""

    words: tuple[str, ...]
    codes: tuple[tuple[str, int], ...]
    tenses: frozenset[Tense]
    asks: frozenset[str]
    polar: bool


def read_form(text: str) -> Form:
    """Look at a question; contractions may be long or short."""
    said = _POLITE.sub("please", text.lower().replace("\u2019", "'"))
    words = tuple(_WORD.findall(said))
    codes = Counter(code for code in _CODE.findall(said) if not _ORDINAL.fullmatch(code))
    asks = frozenset(ask for word in words if (ask := _ASKS.get(word)))
    return Form(words, tuple(sorted(codes.items())), _read_tenses(words), asks, _is_polar(said))


def refuse_form(asked: Form, stored: Form) -> Refusal | None:
    """Why two questions cannot ask the same; None: their faces do not tell."""
    if asked.codes != stored.codes and {len(asked.codes), len(stored.codes)} != {0}:
        return Refusal.NUMBER
    if asked.polar != stored.polar and (asked.asks or stored.asks):
        return Refusal.QUESTION
    timed = {"when", "where", "who", "why", "whose"}
    if asked.asks & timed != stored.asks & timed and asked.asks and stored.asks and not _both_free(asked, stored):
        return Refusal.QUESTION
    if asked.tenses != stored.tenses:
        return Refusal.TENSE
    return Refusal.ORDER if is_swapped(asked.words, stored.words) else None


def _both_free(asked: Form, stored: Form) -> bool:
    """`what`, `which` and `how` may stand for the others ("what time", "in which city", "how come")."""
    free = {"what", "which", "how"}
    return bool(asked.asks & free) or bool(stored.asks & free)


def _read_tenses(words: Sequence[str]) -> frozenset[Tense]:
    found = set()
    for at, word in enumerate(words):
        if word in _FUTURE or (word == "going" and words[at + 1 : at + 2] == ("to",) and at and words[at - 1] != "be"):
            found.add(Tense.FUTURE)
        elif word in _PAST:
            found.add(Tense.PAST)
        elif word in _PERFECT and any(_PARTICIPLE.fullmatch(later) for later in words[at + 1 : at + 4]):
            found.add(Tense.PERFECT)
    if found:
        return frozenset(found)
    # without a helping verb the verb itself tells: "who won"
    tells = not _HELPERS & set(words) and any(word in PASTS or _ED.fullmatch(word) for word in words)
    return frozenset({Tense.PAST if tells else Tense.PRESENT})


def _is_polar(said: str) -> bool:
    """Whether its last sentence begins with a helping verb."""
    last = next((one for one in reversed(_SENTENCE.split(said)) if one.strip(" ?!.'\"")), said)
    first = _WORD.findall(last)[:1]
    return bool(first) and first[0] in _HELPERS


def is_swapped(asked: Sequence[str], stored: Sequence[str]) -> bool:
    """Whether the same words stand in the same frame, but a few of them in one another's places."""
    if len(asked) != len(stored) or Counter(asked) != Counter(stored):
        return False
    moved = [at for at, (one, other) in enumerate(zip(asked, stored, strict=True)) if one != other]
    return 0 < len(moved) <= _MOST_MOVED and len(moved) < len(asked) - 1
