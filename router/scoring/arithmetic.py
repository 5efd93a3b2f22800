"""
Numbers and sums in running text: what an answer claims to have computed, computed again. Understands `12 x 3 = 36`,
chains (`(60 - 17) / 2 = 43 / 2 = 21.5`), calculator notes (`<<12*3=36>>`), thousands' commas, currency and percent.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBERS = re.compile(_DIGITS)
_LEXEMES = re.compile(rf"({_DIGITS})|([-+*/()%x×÷−])")  # noqa: RUF001 - signs that people type
_MINUS = re.compile(r"(?:^|[\s$:=(])[-−]\$?$")  # noqa: RUF001
_SPELLING = str.maketrans("×x÷−", "**/-")  # noqa: RUF001
_EXPRESSION = " \t0123456789.,$%()x×÷−+*/\\-"  # noqa: RUF001
_NOTE = re.compile(r"<<([^<>]{1,100})>>")
_LONGEST_SIDE = 80
_MOST_EQUATIONS = 64
_ROUNDING = 0.006
_LARGEST = 1e15


class Number(NamedTuple):
    """As written: the absolute value, the digits after its point, and whether a minus makes it negative."""

    value: float
    decimals: int
    negative: bool


class Claim(NamedTuple):
    """`operands` are said to make `said`; they make `value`. `operators` are the signs between them."""

    operands: tuple[float, ...]
    operators: str
    value: float
    said: float

    @property
    def holds(self) -> bool:
        """Whether the two agree, up to rounding and percent."""
        pairs = ((self.value, self.said), (100 * self.value, self.said), (self.value, 100 * self.said))
        return any(abs(value - said) <= max(_ROUNDING * abs(value), _ROUNDING) for value, said in pairs)


def read_numbers(text: str) -> list[float]:
    """The absolute values of the numbers in a text, in order, each at most 1e15."""
    return [_read_value(digits) for digits in _NUMBERS.findall(text)]


def read_last_number(text: str) -> Number | None:
    """The last number in a text. A minus counts where it touches the number and nothing is there to subtract from."""
    digits = _NUMBERS.findall(text)
    if not digits:
        return None
    before = text[: text.rindex(digits[-1])][-3:]
    return Number(_read_value(digits[-1]), len(digits[-1].partition(".")[2]), _MINUS.search(before) is not None)


def read_claims(text: str) -> list[Claim]:
    """The sums in a text, each once, in order; those with words or unknowns between the numbers are passed over."""
    return list(dict.fromkeys(_claims_of(_NOTE.sub(r"\n\1\n", text))))


def _claims_of(text: str) -> Iterator[Claim]:
    start = 0
    for _ in range(_MOST_EQUATIONS):
        at = text.find("=", start)
        if at < 0:
            return
        left = text[max(start, at - _LONGEST_SIDE) : at]
        right = text[at + 1 : at + 1 + _LONGEST_SIDE]
        made = _compute(left[len(left.rstrip(_EXPRESSION)) :])
        said = _compute(right[: len(right) - len(right.lstrip(_EXPRESSION))])
        if made is not None and said is not None and made.operators:
            yield Claim(made.operands, made.operators, made.value, said.value)
        start = at + 1


def _read_value(digits: str) -> float:
    return min(float(digits.replace(",", "")), _LARGEST)


class _Sum(NamedTuple):
    operands: tuple[float, ...]
    operators: str
    value: float


def _compute(text: str) -> _Sum | None:
    reader = _Reader([_read_value(d) if d else s.translate(_SPELLING) for d, s in _LEXEMES.findall(text)])
    try:
        value = reader.read_sum()
    except (IndexError, ZeroDivisionError, _NoNumberError):
        return None
    if not abs(value) < _LARGEST:
        return None
    return _Sum(tuple(reader.operands), "".join(reader.operators), value)


class _NoNumberError(Exception):
    """A sign stands where a number should."""


class _Reader:
    """Recursive descent over numbers and signs; stops at what it cannot read."""

    def __init__(self, lexemes: list[float | str]) -> None:
        self._lexemes = lexemes
        self._at = 0
        self.operands: list[float] = []
        self.operators: list[str] = []

    def read_sum(self) -> float:
        value = self._read_product()
        while self._peek() in ("+", "-"):
            value = value + self._read_product() if self._take_operator() == "+" else value - self._read_product()
        return value

    def _read_product(self) -> float:
        value = self._read_factor()
        while self._peek() in ("*", "/"):
            value = value * self._read_factor() if self._take_operator() == "*" else value / self._read_factor()
        return value

    def _read_factor(self) -> float:
        first = self._lexemes[self._at]
        self._at += 1
        if first == "-":
            return -self._read_factor()
        if first == "(":
            value = self.read_sum()
            self._at += self._peek() == ")"
            return value
        if isinstance(first, str):
            raise _NoNumberError
        self.operands.append(first)
        if self._peek() == "%":
            self._at += 1
            return first / 100
        return first

    def _peek(self) -> float | str | None:
        return self._lexemes[self._at] if self._at < len(self._lexemes) else None

    def _take_operator(self) -> str:
        sign = str(self._lexemes[self._at])
        self._at += 1
        self.operators.append(sign)
        return sign
