"""Whether two readings ask the same: word for word, hanging together the same way, in an order that means the same."""

import re
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from typing import Final

from msgspec import Struct

from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import Reading, Token
from router.cache.guard.refusal import Refusal
from router.cache.guard.words import (
    CALENDAR,
    FORMATS,
    LANGUAGES,
    LOOSE,
    NEGATIVE,
    OTHERS,
    QUANTIFIERS,
    RELATIONS,
    SYMMETRIC,
    UNITS,
)

_UNIT_NAMES: Final = frozenset(UNITS.values())
_ANY_ASKS: Final = frozenset({"qwhat", "qmake"})
_WHEN: Final = frozenset({"qwhen", "qtime", "qyear"})
_TIME_TAKEN: Final = "take"
_TIMES: Final = frozenset(["second", "minute", "hour", "day", "week", "month", "year"])


class Match(Struct, gc=False):
    """One word on both sides, and where it stands."""

    asked: Token
    stored: Token
    at: int
    there: int
    exact: bool
    """The same lemma, not a synonym."""


class Comparison:
    """Compares with a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def refuse(self, asked: Reading, stored: Reading) -> Refusal | None:
        """The first reason why they differ."""
        if not (asked.english and stored.english):
            return Refusal.LANGUAGE
        return self._compare_frames(asked, stored) or self._compare_words(asked, stored)

    def matches_all(self, asked: Reading, stored: Reading) -> bool:
        """Whether every word has its like on the other side, wherever that stands."""
        _, left, over = self._align(content(asked), content(stored))
        return not left and not over

    def _compare_frames(self, asked: Reading, stored: Reading) -> Refusal | None:
        if not _same_asks(asked.asks, stored.asks):
            return Refusal.QUESTION
        if asked.past != stored.past and _has_tense(asked) and _has_tense(stored):
            return Refusal.TENSE
        if (asked.future and _is_past(stored)) or (stored.future and _is_past(asked)):
            return Refusal.TENSE
        return None if _same_modals(asked, stored) else Refusal.MODALITY

    def _compare_words(self, asked: Reading, stored: Reading) -> Refusal | None:
        matches, left, over = self._align(content(asked), content(stored))
        if left or over:
            return self._explain(left, over)
        for match in matches:
            if match.asked.negated != match.stored.negated:
                return Refusal.POLARITY
        if not _same_counts(asked.tokens, stored.tokens, matches, self._lexicon):
            return Refusal.NUMBER
        return _Arrangement(self._lexicon, matches).refuse()

    def _align(self, asked: list[Token], stored: list[Token]) -> tuple[list[Match], list[Token], list[Token]]:
        """Matched words, and those that have no counterpart."""
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for there, token in enumerate(stored):
            places[token.lemma, token.grade].append(there)
        matches, left = [], []
        for at, token in enumerate(asked):
            found = places.get((token.lemma, token.grade))
            if not found:
                left.append(at)
                continue
            there = next((one for one in found if stored[one].relation == token.relation), found[0])
            found.remove(there)
            matches.append(Match(token, stored[there], at, there, exact=True))
        over = [there for found in places.values() for there in found]
        if len(left) != len(over) or len(left) > max(2, len(asked) // 2):
            return matches, [asked[at] for at in left], [stored[there] for there in over]
        alone = []
        for at in left:
            twin = next((there for there in over if self._means(asked[at], stored[there])), None)
            if twin is None:
                alone.append(asked[at])
                continue
            over.remove(twin)
            matches.append(Match(asked[at], stored[twin], at, twin, exact=False))
        matches.sort(key=lambda match: match.at)
        return matches, alone, [stored[there] for there in over]

    def _means(self, one: Token, other: Token) -> bool:
        """Whether the one word may stand for the other."""
        if one.proper or other.proper or one.grade != other.grade:
            return False
        a, b = one.lemma, other.lemma
        if _closed(a) or _closed(b) or self._lexicon.opposite(a, b):
            return False
        return (
            _spelt(a) == _spelt(b)
            or (a not in FORMATS and b not in FORMATS and self._lexicon.synonymous(a, b))
            or self._lexicon.derived(a, b)
        )

    def _explain(self, left: list[Token], over: list[Token]) -> Refusal:
        """What kind of words the unmatched ones are."""
        words = [*left, *over]
        for is_kind, refusal in KINDS:
            if any(is_kind(token) for token in words):
                return refusal
        for one in left:
            if any(self._lexicon.opposite(one.lemma, other.lemma) for other in over):
                return Refusal.POLARITY
        return Refusal.ENTITY if any(token.proper for token in words) else Refusal.CONTENT


KINDS: Final = (
    (lambda token: token.lemma.startswith("#"), Refusal.NUMBER),
    (lambda token: token.lemma.startswith('"'), Refusal.QUOTE),
    (lambda token: token.lemma in CALENDAR, Refusal.DATE),
    (lambda token: token.lemma in _UNIT_NAMES, Refusal.UNIT),
    (lambda token: token.lemma in NEGATIVE, Refusal.POLARITY),
    (lambda token: token.lemma in OTHERS, Refusal.PERSON),
    (lambda token: token.lemma in LANGUAGES, Refusal.LANGUAGE),
    (lambda token: token.lemma in FORMATS, Refusal.FORMAT),
    (lambda token: token.lemma in QUANTIFIERS or bool(token.grade), Refusal.QUANTITY),
    (lambda token: token.lemma in RELATIONS, Refusal.RELATION),
)


def _closed(lemma: str) -> bool:
    """Whether nothing but itself may stand for a word."""
    return (
        not lemma[0].isalpha()
        or lemma in CALENDAR
        or lemma in _UNIT_NAMES
        or lemma in NEGATIVE
        or lemma in QUANTIFIERS
        or lemma in LANGUAGES
        or lemma in RELATIONS
    )


def _spelt(word: str) -> str:
    """British and American spellings as one."""
    return (
        word.replace("our", "or")
        .replace("ise", "ize")
        .replace("yse", "yze")
        .replace("tre", "ter")
        .replace("ll", "l")
        .replace("ae", "e")
        .replace("oe", "e")
    )


def content(reading: Reading) -> list[Token]:
    timed = any(a.lemma == "many" and b.lemma in _TIMES for a, b in pairwise(reading.tokens))
    if timed or "qlong" in reading.asks:
        return [token for token in reading.tokens if token.lemma != _TIME_TAKEN]
    return reading.tokens


def _has_tense(reading: Reading) -> bool:
    return reading.past or reading.present or reading.future


def _is_past(reading: Reading) -> bool:
    return not (reading.present or reading.future) and any(token.finite_past for token in reading.tokens)


def _same_asks(asked: list[str], stored: list[str]) -> bool:
    """What they ask for, in any order; a plain request may be put as a question for a thing."""
    one, other = Counter(asked), Counter(stored)
    only, missing = set(one - other) - _ANY_ASKS, set(other - one) - _ANY_ASKS
    if not only and not missing:
        return True
    both = only | missing
    return both <= _WHEN and not {"qtime", "qyear"} <= both


def _same_modals(asked: Reading, stored: Reading) -> bool:
    """Behind `how` and its like it matters little whether one can; behind another, should and must are alike."""
    one, other = set(asked.modals), set(stored.modals)
    if any(name != "qmake" for name in asked.asks):
        one, other = ({"should" if modal in {"must", "need"} else modal for modal in modals} for modals in (one, other))
    if any(name in {"qhow", "qlong", "qoften"} for name in asked.asks):
        return one == other or not one or not other
    if "need" in one ^ other:
        one, other = (
            modals - {"need", "should", "must"} | ({"need"} if modals & {"need", "should", "must"} else set())
            for modals in (one, other)
        )
    return one == other


def _same_counts(asked: list[Token], stored: list[Token], matches: list[Match], lexicon: Lexicon) -> bool:
    """Whether every number counts the same thing on both sides."""
    twins = {id(match.asked): match.stored for match in matches}
    for here, behind in pairwise(asked):
        counts = (
            here.lemma.startswith("#")
            and not _YEAR.fullmatch(here.lemma)
            and behind.relation == here.relation
            and lexicon.pos(behind.lemma)[:1] in {"n", ""}
        )
        if not counts or behind.lemma.startswith("#") or id(here) not in twins:
            continue
        there = next(at for at, token in enumerate(stored) if token is twins[id(here)])
        counted = stored[there + 1] if there + 1 < len(stored) else None
        twin = twins.get(id(behind))
        if counted is not None and twin is not None and twin is not counted and twin.lemma != counted.lemma:
            return False
    return True


def _names(modifier: Token, head: Token, lexicon: Lexicon) -> bool:
    """Whether two words may make one name of a thing."""
    counts = modifier.lemma.startswith("#") and not _YEAR.fullmatch(modifier.lemma)
    return not (
        counts
        or modifier.grade
        or head.passive
        or lexicon.pos(modifier.lemma)[:1] == "a"
        or "n" not in (lexicon.pos(head.lemma) or "n")
    )


_YEAR: Final = re.compile(r"#[12]\d{3}")
_ALIKE: Final = (
    {"in", "with"},
    {"in", "to"},
    {"for", "of"},
    {"for", "to"},
    {"on", "about"},
    {"for", "to do"},
    {"on", "for"},
    {"of", "with"},
)
"""Relations that are put for each other where nothing else differs."""


class _Arrangement:
    """How matched words hang together on both sides."""

    def __init__(self, lexicon: Lexicon, matches: list[Match]) -> None:
        self._lexicon, self._matches = lexicon, matches
        self._symmetric = any(match.asked.lemma in SYMMETRIC for match in matches)
        self._both_suppose = all(
            any(clause == "if" for clause in clauses)
            for clauses in ((one.asked.clause for one in matches), (one.stored.clause for one in matches))
        )
        self._turned = [match for match in matches if match.asked.passive != match.stored.passive]

    def refuse(self) -> Refusal | None:
        """The first word that hangs otherwise, or the first two that changed places without a reason."""
        if not all(self._suffers(verb) for verb in self._turned):
            return Refusal.ORDER
        groups: dict[tuple[str, str], list[Match]] = defaultdict(list)
        for match in self._matches:
            if not self._same_relation(match):
                return Refusal.ORDER
            same = match.asked.relation == match.stored.relation and match.asked.clause == match.stored.clause
            groups[(match.asked.relation, match.asked.clause) if same else ("", "")].append(match)
        for group in groups.values():
            if any(one.there > other.there and not self._may_turn(one, other) for one, other in combinations(group, 2)):
                return Refusal.ORDER
        return None

    def _same_relation(self, match: Match) -> bool:
        one, other = match.asked.relation, match.stored.relation
        if not self._same_clause(match):
            return False
        if one == other or {one, other} in ({"", "to do"}, {"", "without"}):
            return True
        if self._symmetric and {one, other} <= {"", "from", "between", "to", "with", "to do"}:
            return True
        plain, loose = (match.asked, match.stored) if one in {"", "to do"} else (match.stored, match.asked)
        if plain.relation in {"", "to do"} and loose.relation == "by" and self._turned:
            return self._acts(match)
        if plain.relation in {"", "to do"} and loose.relation in LOOSE and {one, other} != {"for", "to do"}:
            return loose.relation in LOOSE and (
                (plain.modifier and self._compounded(match, plain is match.asked))
                or (loose.relation == "of" and self._nominal(match, plain is match.asked))
            )
        return any({one, other} == pair for pair in _ALIKE)

    def _compounded(self, match: Match, asked: bool) -> bool:
        """Whether it stands before a word that it hangs on, on the other side: a kitchen tap, a tap in the kitchen."""
        if asked:
            head = next((one for one in self._matches if one.at == match.at + 1), None)
            return (
                head is not None
                and (head.there < match.there or match.there == 0)
                and _names(match.asked, head.asked, self._lexicon)
            )
        head = next((one for one in self._matches if one.there == match.there + 1), None)
        return (
            head is not None
            and (head.at < match.at or match.at == 0)
            and _names(match.stored, head.stored, self._lexicon)
        )

    def _nominal(self, match: Match, asked: bool) -> bool:
        """Whether a verb's object became what its noun is `of`: what it means, the meaning of it."""
        verb = next(
            (
                one
                for one in self._matches
                if (one.there if asked else one.at) - (match.there if asked else match.at)
                in ((-1, 1) if not one.exact else (-1,) if self._is_verb(one) else ())
            ),
            None,
        )
        if verb is None:
            return False
        after, passive = (
            (verb.at < match.at, verb.asked.passive) if asked else (verb.there < match.there, verb.stored.passive)
        )
        return after or passive or self._is_alone(verb, asked=asked)

    def _is_alone(self, verb: Match, *, asked: bool) -> bool:
        """Whether a verb has no object, so that who stands before it is who its noun is `of`."""
        if asked:
            return not any(one.at > verb.at and not one.asked.relation for one in self._matches)
        return not any(one.there > verb.there and not one.stored.relation for one in self._matches)

    def _is_verb(self, match: Match) -> bool:
        return self._lexicon.pos(match.asked.lemma)[:1] == "v"

    def _acts(self, match: Match) -> bool:
        """Whether one that a passive verb has behind `by` stands before that verb where it is active."""
        for verb in self._turned:
            if verb.asked.passive:
                fits = match.asked.relation == "by" and match.there < verb.there
            else:
                fits = match.stored.relation == "by" and match.at < verb.at
            if fits:
                return True
        return False

    def _suffers(self, verb: Match) -> bool:
        """Whether what stands before the passive verb stands behind the active one."""
        if verb.asked.relation or verb.stored.relation:
            return True
        if verb.asked.passive:
            before = [
                one for one in self._matches if one.at < verb.at and not one.asked.relation and not one.asked.clause
            ]
            return not before or max(before, key=lambda one: one.at).there > verb.there
        before = [
            one for one in self._matches if one.there < verb.there and not one.stored.relation and not one.stored.clause
        ]
        return not before or max(before, key=lambda one: one.there).at > verb.at

    def _same_clause(self, match: Match) -> bool:
        """What is supposed may as well be said outright, if nothing is supposed on that side at all."""
        one, other = match.asked.clause, match.stored.clause
        if match.asked.relation == match.stored.relation == "in" and match.asked.proper and match.stored.proper:
            return True  # where it is: at the end of either clause
        return one == other or ({one, other} == {"", "if"} and not self._both_suppose)

    def _may_turn(self, one: Match, other: Match) -> bool:
        if (one.asked.fronted or one.stored.fronted) != (other.asked.fronted or other.stored.fronted):
            return True
        if self._symmetric and (one.asked.joined or other.asked.joined or one.stored.joined or other.stored.joined):
            return True
        if one in self._turned or other in self._turned:
            return True
        return any(self._explained(match) or self._describes(match) for match in (one, other))

    def _explained(self, match: Match) -> bool:
        """Of a thing, or that thing's."""
        relations = {match.asked.relation, match.stored.relation} - {"to do"}
        return len(relations | ({""} if "to do" in {match.asked.relation, match.stored.relation} else set())) == 2

    def _describes(self, match: Match) -> bool:
        """An adjective may stand before its noun or behind `is`; but not where there is another to mistake it for."""
        pos = self._lexicon.pos(match.asked.lemma)
        adjectives = [
            one
            for one in self._matches
            if one.asked.lemma not in QUANTIFIERS
            if self._lexicon.pos(one.asked.lemma)[:1] in {"a", "r"} or one.asked.grade
        ]
        return bool(match.asked.grade or pos[:1] in {"a", "r"}) and len(adjectives) == 1
