"""
Cheap signals of a prompt, in tens of microseconds: what can be counted in the last user turn (length, form, numbers and
what computing with them takes, options of a multiple-choice question), something of the turns before it, and its words.

A long turn is read at both ends only: `_HEAD` and `_TAIL` characters.
"""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.query import Conversation, Prompt

Matrix = NDArray[np.float32]

_HEAD: Final = 3072
_TAIL: Final = 1024
_MOST_NUMBERS: Final = 32
_MOST_DIGITS: Final = 15
_MOST_TURNS: Final = 32

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_OPTION = re.compile(r"\n\(?[A-J][.):] ?")
_DIGITS = re.compile(r"\d+")


class Signal(StrEnum):
    """What a feature tells of, as explanations name it."""

    LENGTH = "length"
    FORM = "form"
    PHRASING = "phrasing"
    NUMBERS = "numbers"
    OPTIONS = "options"
    HISTORY = "earlier turns"
    WORDING = "wording"
    EMBEDDING = "meaning"


# Lower-case words and marks that are counted together.
_LEXICON: Final[dict[str, str]] = {
    "negations": "not no never cannot without neither nor n't t false incorrect wrong untrue unlikely",
    "exceptions": "except least excluding unless other",
    "extremes": "most best main primary primarily mainly largest smallest greatest highest lowest first last only",
    "conditions": "if suppose assume assuming given let when whenever while",
    "comparisons": "more less fewer than greater larger smaller higher lower older younger longer shorter",
    "multiples": "twice times half third quarter double triple thrice each every per percent percentage ratio fraction",
    "quantities": "how many much number amount total altogether left remaining remain rest",
    "times": "second seconds minute minutes hour hours day days week weeks month months year years daily weekly",
    "money": "cost costs price pay paid spend spent earn earns sell sold buy bought money dollars cents $ profit",
    "adding": "add added adds plus sum + together up",
    "subtracting": "subtract subtracted minus difference away gave gives lost ate take less",
    "multiplying": "multiply multiplied product times * x",
    "dividing": "divide divided quotient remainder split share equally / average mean",
    "ordering": "sort sorted order arrange ascending descending increasing decreasing rank list",
    "spelling": "reverse reversed backwards letter letters spell word string characters vowels position",
    "reasons": "why because therefore explain reason argue claim premise conclusion infer imply implies",
    "judgements": "should ought moral morally wrong right acceptable ethical good bad",
    "statements": "statement statements true i ii iii iv both",
    "calculating": "calculate compute find determine evaluate solve approximate approximately estimate",
    "numerals": "one two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred thousand",
    "references": "it that this those these they them previous above following said told mentioned",
    "questions": "what which who whom whose where",
    "code": "def return import print class int void for while function null true const",
}
_KINDS: Final = {word: kind for kind, words in enumerate(_LEXICON.values(), 1) for word in words.split()}

# Characters that are counted together: one name, its characters.
_MARKS: Final[dict[str, str]] = {
    "capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digits": "0123456789",
    "newlines": "\n",
    "sentences": ".!",
    "question_marks": "?",
    "commas": ",",
    "colons": ":;",
    "quotes": "\"'`",
    "brackets": "()[]",
    "braces": "{}",
    "operators": "=+*/^<>|~&",
    "latex": "\\$",
    "percents": "%",
    "underscores": "_",
    "dashes": "-",
}


def _mark_table() -> bytes:
    table = bytearray(128) + bytes([len(_MARKS) + 1]) * 128
    for mark, characters in enumerate(_MARKS.values(), 1):
        for character in characters.encode():
            table[character] = mark
    return bytes(table)


_MARK_OF: Final = _mark_table()
_EACH_MARK: Final = range(1, len(_MARKS) + 2)

_COUNTED: Final = (
    "characters",
    "tokens",
    "question_characters",
    "options",
    "shortest_option",
    "longest_option",
    "option_spread",
    "numeric_options",
    "alike_options",
    "numbers",
    "largest",
    "smallest",
    "carries",
    "borrows",
    "digit_sum",
    "inversions",
    "largest_step",
    "earlier_turns",
    "earlier_user_characters",
    "earlier_reply_characters",
    "system_characters",
    "earlier_sentences",
    "earlier_numbers",
)
_MEASURED: Final = (
    "word_length",
    "first_digits",
    "second_digits",
    "most_digits",
    "digit_product",
    "distinct_numbers",
    "even_steps",
    "trailing_zeros",
    "longest_capitals",
    "capital_words",
    "repeated_capitals",
    "asks_at_end",
    "starts_small",
    "earlier_digits",
    "shared_with_earlier",
    "place_in_earlier",
)

_NUMERIC: Final = (
    "digits",
    *_COUNTED[_COUNTED.index("numbers") : _COUNTED.index("earlier_turns")],
    *_MEASURED[_MEASURED.index("first_digits") : _MEASURED.index("longest_capitals")],
)
_LONG: Final = ("characters", "tokens", "word_length", "newlines", "sentences")
_EARLIER: Final = ("earlier_", "system_", "shared_with_earlier", "place_in_earlier")


@dataclass(frozen=True, slots=True)
class Reading:
    """One prompt, read once: `_MEASURED` and `_COUNTED` numbers, counts of marks and kinds of words, and the same as
    shares of characters and words; and its words.
    """

    numbers: list[float]
    tokens: list[str]


def read_prompt(prompt: Prompt) -> Reading:
    """The last user turn (or the raw texts), and what came before it."""
    raw = _cut(prompt.text)
    tokens = _TOKEN.findall(raw.lower())
    marked = raw.encode("latin-1", "replace").translate(_MARK_OF)
    kinds = [0] * len(_LEXICON)
    for kind in filter(None, map(_KINDS.get, tokens)):
        kinds[kind - 1] += 1
    letters = list(filter(str.isalpha, tokens))
    capitals = _CAPITALS.findall(raw)
    longest = max(capitals, key=len, default="")
    earlier = _read_earlier(prompt, tokens)
    options = _read_options(raw)
    numbers = _read_numbers(list(filter(str.isdecimal, tokens)))
    counted = [len(raw), len(tokens), *options, *numbers[:8], *earlier[:6]]
    measured = [
        sum(map(len, letters)) / (len(letters) or 1),
        *numbers[8:],
        min(len(longest), 24),
        min(len(capitals), 24),
        len(longest) - len(set(longest)),
        float("?" in raw[-40:]),
        float(raw[:1].islower()),
        *earlier[6:],
    ]
    marks = list(map(marked.count, _EACH_MARK))
    characters, words = len(raw) or 1, len(tokens) or 1
    shares = [*[count / characters for count in marks], *[count / words for count in kinds]]
    return Reading([*measured, *counted, *marks, *kinds, *shares], tokens)


def _cut(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"


def _read_options(raw: str) -> list[float]:
    question, *options = _OPTION.split(raw)
    if len(options) < 2:
        return [len(raw), 0, 0, 0, 0, 0, 0]
    options[-1] = options[-1].partition("\n")[0]
    lengths = [len(option) for option in options]
    numeric = sum(1 for option in options if option[:1].isdigit() or option[1:2].isdigit())
    alike = sum(1 for one, other in pairwise(options) if one[:4] == other[:4])
    return [len(question), len(options), min(lengths), max(lengths), max(lengths) - min(lengths), numeric, alike]


def _read_numbers(found: list[str]) -> list[float]:
    """What computing with them takes; carries and borrows are those of the first two."""
    if not found:
        return [0.0] * 15
    texts = [text[:_MOST_DIGITS] for text in found[:_MOST_NUMBERS]]
    values = list(map(int, texts))
    sizes = list(map(len, texts))
    second = values[1] if len(values) > 1 else 0
    second_digits = sizes[1] if len(values) > 1 else 0
    steps = [abs(after - before) for before, after in pairwise(values)]
    carries, borrows = _carry(values[0], second)
    return [
        len(found),
        max(values),
        min(values),
        carries,
        borrows,
        sum(map(int, "".join(texts))),
        sum(before > after for before, after in pairwise(values)),
        max(steps, default=0),
        sizes[0],
        second_digits,
        max(sizes),
        sizes[0] * second_digits,
        len(set(values)) / len(values),
        float(len(steps) > 1 and len(set(steps)) == 1),
        sum(len(text) - len(text.rstrip("0")) for text in texts),
    ]


def _carry(one: int, other: int) -> tuple[int, int]:
    """How often the written sum carries and the written difference (of the larger and the smaller) borrows."""
    large, small = (one, other) if one >= other else (other, one)
    carries = borrows = carry = borrow = 0
    while small or (large and (carry or borrow)):
        (large, up), (small, down) = divmod(large, 10), divmod(small, 10)
        carry = int(up + down + carry > 9)
        borrow = int(up - down - borrow < 0)
        carries += carry
        borrows += borrow
    return carries, borrows


def _read_earlier(prompt: Prompt, tokens: list[str]) -> list[float]:
    if not isinstance(prompt, Conversation) or len(prompt.messages) < 2:
        return [0.0] * 9
    roles: dict[str, list[str]] = {}
    for message in prompt.messages[-_MOST_TURNS:]:
        roles.setdefault(message.role, []).append(message.text)
    users, replies = roles.get("user", [])[:-1], roles.get("assistant", [])
    said = _cut("\n".join(users)).lower()
    last_numbers = _DIGITS.findall(replies[-1][-200:]) if replies else []
    shared = [said.find(word) for word in set(tokens) if len(word) > 3 and word in said]
    return [
        len(users),
        len(said),
        sum(map(len, replies)),
        sum(map(len, roles.get("system", []))),
        said.count("."),
        len(_DIGITS.findall(said)),
        len(last_numbers[-1]) if last_numbers else 0,
        len(shared),
        max(shared, default=0) / (len(said) or 1),
    ]


NAMES: Final = (
    *_MEASURED,
    *_COUNTED,
    *_MARKS,
    "foreign",
    *_LEXICON,
    *(f"{name}_share" for name in (*_MARKS, "foreign", *_LEXICON)),
)
# Where columns of the table begin.
_COUNTS_AT: Final = len(_MEASURED)
_SHARES_AT: Final = _COUNTS_AT + len(_COUNTED) + len(_MARKS) + 1 + len(_LEXICON)


def tabulate(readings: Sequence[Reading]) -> Matrix:
    """A row a prompt, a column a name of `NAMES`: counts as log(1 + n), and those of marks and words as shares too."""
    # `array` asks each number for nothing but itself, where numpy first finds out what they all could be
    numbers = array("f", chain.from_iterable([reading.numbers for reading in readings]))
    table = np.frombuffer(numbers, np.float32).reshape(len(readings), len(NAMES))
    counts = table[:, _COUNTS_AT:_SHARES_AT]
    np.log1p(counts, out=counts)
    return table


def _signal(name: str) -> Signal:
    if name.startswith(_EARLIER[:2]) or name in _EARLIER[2:]:
        return Signal.HISTORY
    base = name.removesuffix("_share")
    if base in _LONG:
        return Signal.LENGTH
    if "option" in base or base == "question_characters":
        return Signal.OPTIONS
    if base in _LEXICON:
        return Signal.PHRASING
    return Signal.NUMBERS if base in _NUMERIC else Signal.FORM


SIGNALS: Final = tuple(map(_signal, NAMES))
"""What each of `NAMES` belongs to."""
