"""Numbers however they are written: every one becomes `#` and its digits."""

# ruff: noqa: E501 - a pattern is easier to read on one line
import re
from typing import Final

from router.cache.guard.words import NUMBER_WORDS, ORDINALS, SCALES

_CURRENCIES: Final = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}
_SIGNS: Final = re.compile(r"([$€£¥₹])\s?(\d[\d,.]*\d|\d)(k|m|bn)?\b")
_AMOUNT: Final = re.compile(
    r"(?<![\w.#])((?:(?<!\S)-)?\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?:(?<!\S)-)?\d+(?:\.\d+)?)(?![\d:/]\d)(st|nd|rd|th)?([a-zµ]{1,3}(?:/[a-z]+)?)?(?!\w)"
)
_WORDS: Final = re.compile(
    r"\b(?:(?:{0}|a(?= hundred| thousand| million| dozen))(?:[ -](?:and )?(?:{0}))*(?:[ -](?:{1}))*)(?:(?:[ -](?:and )?)(?:{0}|{1}))*\b".format(
        "|".join(NUMBER_WORDS), "|".join(SCALES)
    )
)
_PRONOUN_ONE: Final = re.compile(
    r"\b(do|does|did|can|could|should|would|must|may|will|to|which|this|that|the|no|any|some|every|each|only) one\b"
    r"(?! hour| day| week| month| year| minute| hundred| thousand| million| billion| trillion)"
)


_ORDINAL: Final = re.compile(rf"(?<!\d )\b(?:{'|'.join(ORDINALS)})\b")
_SIGNED: Final = (
    *tuple(
        (re.compile(rf"(?<=[\d)]) ?{sign} ?(?=[\d(#])"), f" {name} ")
        for sign, name in ((r"\+", "plus"), (r"\*", "times"))
    ),
    (re.compile(r"(?<=[\w)]) - (?=[\w(])"), " minus "),
)
_WORD: Final = re.compile(r"[a-z]+")
_SPEED: Final = re.compile(r"\bkm/h\b|\bkilomet(?:er|re)s? per hour\b")
_NAMES: Final = frozenset(NUMBER_WORDS) | frozenset(SCALES)


def read_numerals(text: str) -> str:
    """Lower-case text with its numbers as `#12`, `#3.5`, `#2th`; currencies behind, fused units apart."""
    text = _SIGNS.sub(lambda found: f"{found[2]}{found[3] or ''} {_CURRENCIES[found[1]]}", text)
    text = text.replace("°", " ").replace("%", " percent ")
    if "km" in text or "per hour" in text:
        text = _SPEED.sub("kmh", text)
    text = _PRONOUN_ONE.sub(r"\1 someone", text)
    words = set(_WORD.findall(text))
    if not words.isdisjoint(_NAMES):
        text = _WORDS.sub(_count, text)
    if not words.isdisjoint(ORDINALS):
        text = _ORDINAL.sub(lambda found: f"#{ORDINALS[found.group()]}", text)
    if "+" in text or " - " in text or "*" in text:
        for pattern, name in _SIGNED:
            text = pattern.sub(name, text)
    return _AMOUNT.sub(_amount, text)


def _amount(found: re.Match[str]) -> str:
    digits = found[1].replace(",", "")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    sign, digits = ("-", digits[1:]) if digits[0] == "-" else ("", digits)
    digits = sign + (digits.lstrip("0") or "0")
    return f"#{digits}{'th' if found[2] else ''}{' ' + found[3] if found[3] else ''}"


def _count(found: re.Match[str]) -> str:
    total = current = 0
    for word in re.split(r"[ -]", found.group()):
        if word in NUMBER_WORDS:
            if (current % 100 and NUMBER_WORDS[word] >= 10) or (
                current % 10 and not 0 < current % 100 > 19 and current
            ):
                return found.group()  # a list of numbers, such as a year's two halves: read word by word instead
            current += NUMBER_WORDS[word]
        elif word in SCALES:
            if SCALES[word] == 100:
                current = max(current, 1) * 100
            else:
                total, current = total + max(current, 1) * SCALES[word], 0
    return f"#{total + current}"
