"""Families as people write them, without the lines that cannot be used."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.cache.pairs import Edit, Family

_SLOT = re.compile(r"\{(\w+)\}")


def read_clean(path: Path) -> list[Family]:
    """The families of a file; lines that are broken are left out, and families that are left without pairs."""
    found: list[Family] = []
    for line in (one.strip() for one in path.read_text(errors="replace").splitlines()):
        if head := re.fullmatch(r"\[(.+)\]", line):
            found.append(Family(head[1]))
        elif not found or not line or line.startswith("#"):
            continue
        elif slot := re.fullmatch(r"\{(\w+):(\w+)\} (.+)", line):
            values = list(dict.fromkeys(value.strip() for value in slot[3].split("|") if value.strip()))
            found[-1].kinds[slot[1]], found[-1].values[slot[1]] = slot[2], values
        elif edit := re.fullmatch(r"! (\w+): (.+?) (<?>) (.+)", line):
            found[-1].edits.append(Edit(edit[1], edit[2].strip(), edit[4].strip(), edit[3] == "<>"))
        elif phrasing := re.fullmatch(r"= (.+)", line):
            found[-1].phrasings.append(phrasing[1])
    return [family for family in found if _mend(family)]


def _mend(family: Family) -> bool:
    slots = set(family.values)
    if any(len(values) < 2 for values in family.values.values()):
        return False
    phrasings = [
        one for one in dict.fromkeys(family.phrasings) if set(_SLOT.findall(one)) == slots and _formats(one, slots)
    ]
    family.phrasings[:] = phrasings
    fill = {slot: values[0] for slot, values in family.values.items()}
    family.edits[:] = [edit for edit in family.edits if any(_applies(edit, phrasings, fill, slots))]
    return len(phrasings) >= 2


def _formats(text: str, slots: set[str]) -> bool:
    try:
        text.format(**dict.fromkeys(slots, "x"))
    except (KeyError, ValueError, IndexError):
        return False
    return True


def _applies(edit: Edit, phrasings: list[str], fill: dict[str, str], slots: set[str]) -> Iterator[bool]:
    if not (_formats(edit.old, slots) and _formats(edit.new, slots)) or edit.old == edit.new:
        return
    for phrasing in phrasings:
        text = phrasing.format(**fill)
        edited = edit.fill(fill).apply(text)
        yield edited is not None and edited != text
