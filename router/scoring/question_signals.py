"""What in a question makes a plausible answer likely to be wrong: relations to keep apart, units, parts and wholes."""

import math
import re

_NAMES = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_COUNTED = {
    "question_sentences": re.compile(r"[.!?](?:\s|$)"),
    "question_fractions": re.compile(r"\d/\d|\b(?:half|thirds?|quarters?|fourths?|fifths?)\b"),
    "question_percents": re.compile(r"%|\bpercent"),
    "question_decimals": re.compile(r"\d\.\d"),
    "question_comparisons": re.compile(
        r"\b(?:more|less|fewer|older|younger|longer|shorter|taller|bigger|smaller)\b[^.?!]{0,20}\bthan\b"
    ),
    "question_multiples": re.compile(r"\b(?:times|twice|double|triple)\b"),
    "question_durations": re.compile(r"\b(?:hours?|minutes?|days?|weeks?|months?|years?)\b"),
    "question_rates": re.compile(r"\b(?:each|every|per)\b"),
}


def read_question_signals(question: str) -> dict[str, float]:
    """How often each thing occurs, as log(1 + count)."""
    lowered = question.lower()
    signals = {name: math.log1p(len(pattern.findall(lowered))) for name, pattern in _COUNTED.items()}
    return {"question_names": math.log1p(len(_NAMES.findall(question))), **signals}
