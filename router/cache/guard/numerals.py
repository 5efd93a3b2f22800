"""Numbers however they are written: every one becomes `#` and its digits."""

import re
from typing import Final

from router.cache.guard.words import NUMBER_WORDS, ORDINALS, SCALES

_CURRENCIES: Final = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}
_SIGNS: Final = re.compile(r"([$€£¥₹])\s?(\d[\d,.]*\d|\d)(k|m|bn)?\b")
_AMOUNT: Final = re.compile(
    r"(?<![\w.#])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?![\d:/]\d)(st|nd|rd|th)?([a-zµ]{1,3}(?:/[a-z]+)?)?(?!\w)"
)
_WORDS: Final = re.compile(
    r"\b(?:(?:{0}|a(?= hundred| thousand| million| dozen))(?:[ -](?:and )?(?:{0}))*(?:[ -](?:{1}))*)(?:(?:[ -](?:and )?)(?:{0}|{1}))*\b".format(
        "|".join(NUMBER_WORDS), "|".join(SCALES)
    )
)
_PRONOUN_ONE: Final = re.compile(r"\b(do|does|did|can|could|should|would|must|may|will|to|which|this|that|the|no|any|some|every|each|only) one\b(?! hour| day| week| month| year| minute)")


def read_numerals(text: str) -> str:
    """Lower-case text with its numbers as `#12`, `#3.5`, `#2th`; currencies behind, fused units apart."""
    text = _SIGNS.sub(lambda found: f"{found[2]}{found[3] or ''} {_CURRENCIES[found[1]]}", text)
    text = text.replace("°", " ").replace("%", " percent ")
    text = re.sub(r"\bkm/h\b|\bkilometers? per hour\b|\bkilometres? per hour\b", "kmh", text)
    text = _PRONOUN_ONE.sub(r"\1 someone", text)
    text = _WORDS.sub(_count, text)
    text = re.sub(rf"(?<!\d )\b(?:{'|'.join(ORDINALS)})\b", lambda found: f"#{ORDINALS[found.group()]}", text)
    text = re.sub(r"\bdozens? (?!of\b)", "#12 ", text)
    return _AMOUNT.sub(_amount, text)


def _amount(found: re.Match[str]) -> str:
    digits = found[1].replace(",", "")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    digits = digits.lstrip("0") or "0"
    return f"#{digits}{'th' if found[2] else ''}{' ' + found[3] if found[3] else ''}"


def _count(found: re.Match[str]) -> str:
    total = current = 0
    for word in re.split(r"[ -]", found.group()):
        if word in NUMBER_WORDS:
            if current % 100 and NUMBER_WORDS[word] >= 10 or current % 10 and not 0 < current % 100 > 19 and current:
                return found.group()  # a list of numbers, such as a year's two halves: read word by word instead
            current += NUMBER_WORDS[word]
        elif word in SCALES:
            if SCALES[word] == 100:
                current = max(current, 1) * 100
            else:
                total, current = total + max(current, 1) * SCALES[word], 0
    return f"#{total + current}"
