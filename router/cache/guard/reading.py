"""What a question says, as far as a guard must know it: its words, their numbers and relations, and what it asks for."""

# ruff: noqa: E501, RUF001 - patterns on one line; the characters that are made alike
import re
import unicodedata
from typing import Final

from msgspec import Struct

from router.cache.guard.frames import expand_contractions, name_frames
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.numerals import read_numerals
from router.cache.guard.words import (
    ARTICLES,
    AUXILIARIES,
    BE,
    EMPTY,
    HAVE,
    IRREGULAR,
    MODALS,
    NEGATIONS,
    OTHERS,
    PAST,
    PASTS,
    PRESENT,
    QUANTIFIERS,
    RELATIONS,
    SUBJECTS,
    SUBORDINATORS,
    UNCHANGED,
    UNITS,
)

_QUOTED: Final = re.compile(
    r"```.*?```|`[^`]+`|\"[^\"]+\"|(?<!\w)'[^']{2,80}?'(?!\w)|https?://\S+|\b[\w.+-]+@[\w-]+\.[\w.]+|(?<![\w/])[~.]?/[\w./-]+",
    re.DOTALL,
)
_QUOTE_SIGN: Final = re.compile(r"[`\"'/@]")
_CODE_SIGN: Final = re.compile(r"[{}=<>\\|^~_]|\w\(\S|::|->|\b[a-z]-[a-z]\b")
_PLACES, _MOST_QUOTES = 0xE000, 256
"""Private characters stand for what is quoted, so that it is read as one word."""
_WORD: Final = re.compile(
    r"[\ue000-\ue0ff]|#-?\d+(?:\.\d+)?(?:th)?|'s(?!\w)|(?<=\w)\+\+|c#|(?:[a-z]\.){{2,}}|[^\W\d_]+(?:_\w+)*\d*(?:'[^\W\d_]+)?|\d[\w.,:/]*\w|\d|[^\w\s]"
)
_CHUNK: Final = re.compile(r"\S+")
_PUNCTUATION: Final = frozenset(".,;:?!'\"()[]-–—…")
_PARTICIPLES: Final = (
    frozenset(form for form in IRREGULAR if form.endswith(("n", "t", "d", "ne", "k", "g", "m"))) | UNCHANGED
)


class Token(Struct, gc=False):
    """A word that matters. `relation` is how it hangs on the rest, `passive` a verb whose object comes first."""

    word: str
    lemma: str
    grade: str = ""
    relation: str = ""
    clause: str = ""
    modifier: bool = False
    passive: bool = False
    negated: bool = False
    fronted: bool = False
    joined: bool = False
    proper: bool = False
    finite_past: bool = False


class Reading(Struct):
    """One question. `asks` are what it asks for, `modals` what may or should be, `past` and `present` its auxiliaries."""

    tokens: list[Token]
    asks: list[str]
    modals: list[str]
    past: bool
    present: bool
    future: bool
    plain: str
    english: bool


def normalise(text: str) -> str:
    """One spelling of the same characters, spaces and quotation marks."""
    text = unicodedata.normalize("NFKC", text)
    text = text.translate(_QUOTES)
    return " ".join(_UNSEEN.sub("", text).split())


_UNSEEN: Final = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ue000-\uf8ff]")
_QUOTES: Final = str.maketrans("‘’‚′“”„″«»–—−×÷", '\'\'\'\'""""""---*/')


class Reader:
    """Reads with a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def read(self, text: str) -> Reading:
        """What a text says; any text at all can be read."""
        text = normalise(text)
        quotes: list[str] = []

        def keep(found: re.Match[str]) -> str:
            quotes.append(found.group().strip("`\"'"))
            return f" {chr(_PLACES + len(quotes) - 1)} " if len(quotes) < _MOST_QUOTES else found.group()

        def keep_code(found: re.Match[str]) -> str:
            return keep(found) if _CODE_SIGN.search(found.group()) else found.group()

        open_text = _QUOTED.sub(keep, text) if _QUOTE_SIGN.search(text) else text
        if _CODE_SIGN.search(open_text):
            open_text = _CHUNK.sub(keep_code, open_text)
        open_text = _mark_names(open_text)
        proper = _proper_names(open_text)
        lower = expand_contractions(open_text.lower())
        lower = read_numerals(re.sub(r"(?<=[a-z\d])-(?=[a-z\d])", " ", lower))
        words = _WORD.findall(name_frames(lower))
        scan = _Scan(self._lexicon, proper, quotes)
        for at, word in enumerate(words):
            scan.take(word, words, at)
        tokens = scan.finish()
        return Reading(
            tokens=tokens,
            asks=scan.asks,
            modals=scan.modals,
            past=scan.past,
            future=scan.future,
            present=scan.present,
            plain=text.casefold().rstrip(" .?!"),
            english=self._is_english(lower, proper),
        )

    def _is_english(self, lower: str, proper: frozenset[str]) -> bool:
        words = [word for word in re.findall(r"[^\W\d_]+", lower) if word not in proper]
        if not words:
            return True
        known = sum(
            word in _CLOSED or word in self._lexicon or self._lexicon.lemma(word) in self._lexicon for word in words
        )
        foreign = len(_FOREIGN.findall(lower))
        return 2 * known >= len(words) and 5 * foreign <= len(words)


_FOREIGN: Final = re.compile("[\u0370-\u1fff\u2c00-\udfff]+")
_CLOSED: Final = (
    ARTICLES
    | AUXILIARIES
    | EMPTY
    | frozenset(RELATIONS)
    | frozenset(SUBORDINATORS)
    | SUBJECTS
    | frozenset(["what", "when", "where", "why", "how"])
)


def _proper_names(text: str) -> frozenset[str]:
    """Words with a capital that no sentence's start gave them, in lower case."""
    return frozenset(
        found.group().lower()
        for found in re.finditer(r"[^\W\d_][\w+#]*", text)
        if not found.group().islower()
        and (
            (not found.group()[1:].islower() and len(found.group()) > 1)
            or (
                found.group()[0].isupper()
                and not _starts(text, found.start())
                and found.group() not in {"I", "I'm", "I'd", "I've", "I'll"}
            )
        )
    )


def _mark_names(text: str) -> str:
    """The text with `_x` at words that look like a closed class but are names: the US, in May, World War I, vitamin A."""
    if not _CAPITAL.search(text, 1):
        return text
    words = text.split()
    if 2 * sum(word[0].isupper() for word in words) > len(words) > 3:
        return text  # a title, or shouting

    def mark(found: re.Match[str]) -> str:
        word = found.group()
        if word == "I":
            behind = text[found.end() :].lstrip(" ")
            named = _AFTER_NAME.search(text[: found.start()]) and (not behind or not behind[0].isalpha())
            return "i_x" if named else word
        named = (word == "A" or word.lower() in _NAMELIKE) and not _starts(text, found.start())
        return f"{word}_x" if named else word

    return _CAPITALS.sub(mark, text)


_NAMELIKE: Final = AUXILIARIES | {"us", "it", "who"}
_CAPITAL: Final = re.compile("[A-Z]")
_CAPITALS: Final = re.compile(r"(?<![\w'])[A-Z][A-Za-z]*(?![\w'])")
_AFTER_NAME: Final = re.compile(r"[A-Z][a-z]+ $")


def _starts(text: str, at: int) -> bool:
    before = text[:at].rstrip(" \"'(")
    return not before or before[-1] in ".?!:\n"


class _Scan:
    """One pass over the words, left to right."""

    def __init__(self, lexicon: Lexicon, proper: frozenset[str], quotes: list[str]) -> None:
        self._lexicon, self._proper, self._quotes = lexicon, proper, quotes
        self._tokens: list[Token] = []
        self._relation = self._clause = ""
        self._be = self._joined = False
        self._negation = ""
        self._told = 0
        self.asks: list[str] = []
        self.modals: list[str] = []
        self.past = self.present = self.future = False
        self._fresh = True

    def take(self, word: str, words: list[str], at: int) -> None:
        """Read one word; `words[at]` is where it stands."""
        following = words[at + 1] if at + 1 < len(words) else ""
        if word == "." and following:
            self._suppose()
        fresh, self._fresh = self._fresh, False
        if word in _PUNCTUATION:
            self._punctuate(word)
        elif (word[0] == "q" and word in _ASKS) or (word in _WH and self._asks(word, following, fresh)):
            self._ask(word)
        elif not (self._take_marker(word, following) or self._take_grammar(word, following, words, at)):
            self._add(word, following=following)

    def _take_marker(self, word: str, following: str) -> bool:
        """A word that turns what follows or what went before."""
        if word[0] == "m" and word in _MODAL_NAMES:
            self.modals.append(word[1:])
            self._relation = ""
        elif word == "'s":
            self._possess()
        elif word in NEGATIONS:
            self._negation = "aux" if word == "not" else "next"
            self._relation = {"without": "without", "no": ""}.get(word, self._relation)
        elif word in SUBORDINATORS and not (word == "since" and following.isdigit()):
            self._clause, self._relation, self._be = SUBORDINATORS[word], "", False
        elif word == "may" and (self._relation in {"in", "by", "of", "since", "until"} or following.startswith("#")):
            self._add("may_x")
        else:
            return False
        return True

    def _take_grammar(self, word: str, following: str, words: list[str], at: int) -> bool:
        """A word of a closed class."""
        before = words[at - 1] if at else ""
        if word == "us" and not self._takes_object(before):
            self._add("us_x")
        elif word in AUXILIARIES:
            self._help(word, following)
        elif word in RELATIONS:
            self._relate(word, following)
        elif word in SUBJECTS:
            self._address(word, before)
        elif word in {"and", "or"}:
            self._joined = True
            if word == "or":
                self._add(word)
        elif word in {"who", "which", "that", "whose", "whom"}:
            self._relation = ""
        else:
            return word in ARTICLES or word in EMPTY
        return True

    def finish(self) -> list[Token]:
        """The tokens, with particles put to their verbs and modifiers seen."""
        if self._negation:
            self._add("not")
        return self._tokens

    def _suppose(self) -> None:
        """Take a statement before the question for what the question supposes: I am 8. Who ...?, if I am 8, who ...?"""
        if not self.asks and not self.modals and self._told == 0:
            for token in self._tokens:
                token.clause = token.clause or "if"
        self._told = len(self._tokens)

    def _possess(self) -> None:
        """Put the owner's whole name behind `of`: Lake Erie's, each customer's, my brother's."""
        for token in reversed(self._tokens[-1:]):
            token.relation = "of"
        for token in reversed(self._tokens[:-1]):
            if (
                not ((token.proper and self._tokens[-1].proper) or token.word in OTHERS or token.word in QUANTIFIERS)
                or token.relation == "of"
            ):
                break
            token.relation = "of"

    def _punctuate(self, mark: str) -> None:
        if mark == "," and self._tokens and self._tokens[0].relation and not self.asks and not self.modals:
            for token in self._tokens:
                token.fronted = True
        if mark in ",;:.?!":
            self._relation = self._clause = ""
            self._be = False
        if mark in ".?!:":
            self._fresh = True
        if mark == ",":
            self._fresh = True

    def _asks(self, word: str, following: str, fresh: bool) -> bool:
        if word in {"when", "where"}:
            return fresh or following in AUXILIARIES or (word == "where" and not self._tokens)
        if word in {"why", "how", "what"}:
            return True
        return fresh or not self._tokens or following == "qyear" or (self._joined and bool(self.asks))

    def _ask(self, word: str) -> None:
        name = word if word[0] == "q" else "q" + {"which": "what", "whom": "who", "whose": "who"}.get(word, word)
        self.asks.append(name)
        self._relation = self._clause = ""
        self._be = self._joined = False

    def _help(self, word: str, following: str) -> None:
        if word in MODALS:
            if MODALS[word]:
                self.modals.append(MODALS[word])
        elif word in BE:
            self._be = True
        self.future = self.future or word == "will"
        if word in PAST:
            self.past = True
        elif word in PRESENT:
            self.present = True
        has = word in HAVE and not (following.endswith("ed") or following in _PARTICIPLES or following == "to")
        self._relation = "with" if has and self._tokens else ""

    def _address(self, word: str, before: str) -> None:
        """Whoever asks is left out as a subject; not where something is done to them."""
        if word in _OBJECTS and self._takes_object(before) and before not in RELATIONS:
            self._add(word, "me")
        elif before in {"only", "even"} and self._tokens:
            self._tokens[-1].lemma += " i"
        if word in {"i", "you", "we"}:
            self._relation = ""

    def _takes_object(self, word: str) -> bool:
        """Whether a verb, or a preposition; so that `us` behind it are people."""
        return word in RELATIONS or (word not in AUXILIARIES and "v" in self._lexicon.pos(self._lexicon.lemma(word)))

    def _relate(self, word: str, following: str) -> None:
        relation = RELATIONS[word]
        if relation in _PARTICLES and self._join_particle(word, ends=self._ends(following)):
            return
        ends = self._ends(following)
        if (
            relation in {"off", "down", "up", "out", "over", "opposite", "outside", "through", "along"}
            and (ends or relation in {"up", "down", "out", "off"})
        ) or (word in {"on", "in"} and ends):
            self._add(word)
        elif relation == "to" and word == "to" and self._is_verb(following):
            self._relation = "than" if self._relation == "than" else "to do"
        elif word == "using" and self._negation:
            self._add(word, "use")
        elif self._relation == "than" and relation in {"by", "in"}:
            pass
        else:
            if relation not in {"in", "of", "for", "with", "by", "to", "from", "than", "about", "on", "between", "as"}:
                self._add(word, relation)
            self._relation = relation

    def _ends(self, following: str) -> bool:
        closed = _PUNCTUATION | AUXILIARIES | SUBJECTS
        return not following or following in closed or following in RELATIONS or following in SUBORDINATORS

    def _join_particle(self, word: str, *, ends: bool) -> bool:
        """Make one word of a verb and its particle: `turn the light off` is to `turn off` the light."""
        reach = self._tokens[-5:] if ends else self._tokens[-1:]
        for token in reversed(reach):
            if f"{token.lemma} {word}" in self._lexicon and "v" in self._lexicon.pos(token.lemma):
                token.lemma = f"{token.lemma} {word}"
                return True
        return False

    def _is_verb(self, word: str) -> bool:
        pos = self._lexicon.pos(word)
        return (
            word in {"be", "have", "do"}
            or pos[:1] == "v"
            or ("v" in pos and word not in self._proper and pos[:1] != "a" and self._lexicon.lemma(word) == word)
        )

    def _add(self, word: str, lemma: str = "", following: str = "") -> None:
        if self._tokens and not self._joined and f"{self._tokens[-1].lemma} {word}" in self._lexicon:
            self._tokens[-1].lemma += f" {word}"  # to take place, to give birth
            return
        token = self._name(word, lemma)
        pos = self._lexicon.pos(token.lemma)
        self._place(token, pos, following)
        self._judge_verb(token, pos, following)
        if self._negation and (self._negation == "next" or "v" in pos or token.grade or pos[:1] == "a"):
            token.negated, self._negation = True, ""
        self._tokens.append(token)
        self._joined = False
        if self._relation == "per":
            self._relation = ""

    def _name(self, word: str, lemma: str) -> Token:
        """The word with its lemma, where none is given."""
        proper, grade = word in self._proper, ""
        if 0 <= (place := ord(word[0]) - _PLACES) < len(self._quotes):
            return Token(word, f'"{self._quotes[place]}', proper=True)
        if not lemma and proper and word in self._lexicon:
            lemma = self._lexicon.lemma(word) if word.endswith("s") else word
        elif not lemma:
            base, grade = self._lexicon.grade(word)
            lemma = base if grade else self._lexicon.lemma(word)
        if len(lemma) > 2 or (self._tokens and self._tokens[-1].word[0] == "#"):
            lemma = UNITS.get(lemma, lemma)
        return Token(word, lemma, grade, proper=proper)

    def _place(self, token: Token, pos: str, following: str) -> None:
        """How it hangs on the rest."""
        if token.word == "every" and following.startswith("#"):
            self._relation = token.word
        last = self._tokens[-1] if self._tokens else None
        if last and last.relation == self._relation not in {"", "to do"} and not self._joined:
            # Behind a preposition's noun: a verb, or at the end what is said of all before.
            verb, said = pos[:1] == "v" and not token.proper, pos[:1] == "a" and self._ends(following)
            self._relation = "" if verb or said else self._relation
        token.relation, token.clause, token.joined = self._relation, self._clause, self._joined
        if last and not self._joined:
            last.modifier = last.relation == token.relation or last.relation == "of"

    def _judge_verb(self, token: Token, pos: str, following: str) -> None:
        """Whether its object comes first, and whether it tells of the past."""
        participle = token.word.endswith("ed") or token.word in _PARTICIPLES
        token.passive = (self._be or following == "by") and participle and "v" in pos
        if self._be and token.relation == "to do" and self._tokens and self._ends(following):
            last = self._tokens[-1]  # easy to read: who is read comes first
            token.passive = token.passive or (not last.relation and self._lexicon.pos(last.lemma)[:1] == "a")
        token.finite_past = not token.passive and (token.word.endswith("ed") or token.word in PASTS)


_PARTICLES: Final = frozenset(["on", "off", "up", "down", "out", "over", "away", "in", "back"])
_OBJECTS: Final = frozenset(
    ["me", "us", "you", "one", "someone", "somebody", "yourself", "myself", "ourselves", "oneself"]
)
_ASKS: Final = frozenset(
    ["qwhat", "qmake", "qoften", "qlong", "qwho", "qwhen", "qtime", "qyear", "qwhere", "qwhy", "qhow", "qage"]
)
_WH: Final = frozenset(["what", "which", "who", "whom", "whose", "when", "where", "why", "how"])
_MODAL_NAMES: Final = frozenset(["mmay", "mshould", "mmust", "mneed"])
