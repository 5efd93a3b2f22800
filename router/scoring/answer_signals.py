"""
What an answer, or its beginning, says about itself: its form, how it fits the question, the sums in it computed again,
and its tokens' log-probabilities. Named finite numbers; a signal that an answer cannot have is absent. At most 2,048
characters of question and answer, from both ends, and 256 tokens are read, so that a long one costs no more.
"""

import math
import re
from collections.abc import Mapping

from router.query import Finish, TokenLogprob
from router.scoring import EdgeAnswer
from router.scoring.number_signals import read_number_signals
from router.scoring.question_signals import read_question_signals
from router.scoring.token_signals import read_token_signals

MAX_CHARACTERS = 2048
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WANTED = re.compile(r"\bhow (?:many|much) (?:more |fewer |less |total )*([^\W\d_]+)")
_OPEN_ENDS = tuple("-+*/=(,<$:;")
_HEDGES = frozenset(
    """
    about actually approximately assume assuming assumed but could however maybe might mistake nearest perhaps probably
    round rounded roughly sorry unclear unknown wait
    """.split()  # noqa: SIM905 - a paragraph of words reads best
)
_REASONS = frozenset(("because", "mean", "means", "since", "therefore", "thus"))
_REFUSALS = (
    "cannot", "can't", "can not", "unable to", "impossible", "don't know", "do not know", "don't have", "do not have",
    "as an ai", "not possible", "not enough", "no solution", "no answer", "i'm sorry", "i am sorry", "apologi",
)  # fmt: skip
_UNKNOWNS = re.compile(r"\b[a-z]\s*=|=\s*\d*[a-z]\b|(?<!\d)\d+[a-z]\b|\blet\b")
_STOP_WORDS = frozenset(
    """
    a an and are as at be by did do does for from had has have he her his how i if in is it its many much of on or she
    so that the their them then there they this to was we were what when which who will with you your
    """.split()  # noqa: SIM905
)


def read_signals(question: str, answer: EdgeAnswer) -> Mapping[str, float]:
    """The signals that this answer has, by name."""
    question, text = _clip(question), _clip(answer.text)
    asked, said = _words(question), _words(text)
    return {
        **_form(question, text, said, answer.finish),
        **_agreement(question, text, asked, said),
        **read_question_signals(question),
        **read_number_signals(question, text, asked),
        **read_token_signals(answer.logprobs),
    }


def signal_names() -> frozenset[str]:
    """Every name that `read_signals` may give."""
    token = TokenLogprob("1", 0.0, (TokenLogprob("1", 0.0),))
    return frozenset(read_signals("How many is 1?", EdgeAnswer("1", (token,), Finish.STOP)))


def _clip(text: str) -> str:
    half = MAX_CHARACTERS // 2
    return text if len(text) <= MAX_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _form(question: str, text: str, said: list[str], finish: Finish | None) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    lowered = text.lower()
    return {
        "characters": math.log1p(len(text)),
        "length_ratio": math.log((1 + len(text)) / (1 + len(question))),
        "lines": math.log1p(len(lines)),
        "empty": float(not last),
        "cut": float(finish is Finish.LENGTH),
        "filtered": float(finish is Finish.CONTENT_FILTER),
        "broken_off": float(last[-1:].isalpha() or last.endswith(_OPEN_ENDS)),
        "last_line": math.log1p(len(last)),
        "last_line_bare": float(bool(last) and not _WORD.search(last)),
        "repetition": _repetition(said),
        "hedges": math.log1p(sum(word in _HEDGES for word in said)),
        "refuses": float(any(phrase in lowered for phrase in _REFUSALS)),
        "asks_back": math.log1p(text.count("?")),
        "reasons": math.log1p(sum(word in _REASONS for word in said)),
        "unknowns": math.log1p(len(_UNKNOWNS.findall(lowered))),
    }


def _repetition(said: list[str]) -> float:
    """The share of word trigrams that were said before."""
    trigrams = list(zip(said, said[1:], said[2:], strict=False))
    return 1.0 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def _agreement(question: str, text: str, asked: list[str], said: list[str]) -> dict[str, float]:
    topic, reply = set(asked) - _STOP_WORDS, set(said) - _STOP_WORDS
    wishes = [sentence for sentence in _SENTENCE_END.split(question) if _WORD.search(sentence)]
    wish = set(_words(wishes[-1])) - _STOP_WORDS if wishes else set()
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if _WORD.search(sentence)]
    closing = set(_words(sentences[-1])) if sentences else set()
    signals = {
        "topic_covered": _share(topic & reply, topic),
        "reply_on_topic": _share(topic & reply, reply),
        "words_added": math.log1p(len(reply - topic)),
        "wish_in_reply": _share(wish & reply, wish),
        "wish_in_closing": _share(wish & closing, wish),
        "longest_sentence": math.log1p(max(map(len, sentences), default=0)),
    }
    if wanted := _WANTED.search(question.lower()):
        signals["wanted_in_closing"] = float(any(word.startswith(wanted[1][:4]) for word in closing))
    return signals


def _share(part: set[str], whole: set[str]) -> float:
    return len(part) / len(whole) if whole else 0.0
