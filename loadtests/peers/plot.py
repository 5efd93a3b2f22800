"""Bars with whiskers as SVG: no plotting library is needed for that."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from loadtests.peers.comparison import Spread

_LINE: Final = 26
_LEFT: Final = 230
_WIDTH: Final = 560
_RIGHT: Final = 150
_TOP: Final = 46
_FONT: Final = 'font-family="sans-serif"'
_OURS: Final = "this router"


def draw(title: str, figures: Sequence[tuple[str, Spread]]) -> str:
    """Medians on a logarithmic scale, most first; whiskers from the least repeat to the most.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not figures:
        raise ValueError("nothing to draw")
    ordered = sorted(figures, key=lambda one: -one[1].median)
    low = 10 ** math.floor(math.log10(max(min(spread.least for _, spread in ordered), 1e-3)))
    high = 10 ** math.ceil(math.log10(max(spread.most for _, spread in ordered)))
    scale = _Scale(low, max(high, low * 10))
    height = _TOP + _LINE * len(ordered) + 24
    width = _LEFT + _WIDTH + _RIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT} font-size="13">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
            *scale.grid(height),
            *(line for place, (name, spread) in enumerate(ordered) for line in _bar(scale, place, name, spread)),
            "</svg>\n",
        ]
    )


class _Scale:
    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def x(self, value: float) -> float:
        share = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        return round(_LEFT + _WIDTH * share, 1)

    def grid(self, height: int) -> Iterator[str]:
        value = self._low
        while value <= self._high:
            x = self.x(value)
            yield f'<line x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - 22}" stroke="#ddd"/>'
            yield f'<text x="{x}" y="{height - 6}" text-anchor="middle" fill="#666">{value:,.0f}</text>'
            value *= 10


def _bar(scale: _Scale, place: int, name: str, spread: Spread) -> Iterator[str]:
    y = _TOP + _LINE * place
    middle = y + 8
    colour = "#1f6f8b" if name.startswith(_OURS) else "#b8b8b8"
    least, most = scale.x(spread.least), scale.x(spread.most)
    yield f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{_LEFT}" y="{y}" width="{scale.x(spread.median) - _LEFT:.1f}" height="16" fill="{colour}"/>'
    yield f'<line x1="{least}" x2="{most}" y1="{middle}" y2="{middle}" stroke="black"/>'
    yield f'<text x="{most + 6}" y="{y + 13}">{spread.median:,.0f}</text>'
