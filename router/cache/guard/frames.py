"""How a question is put, told apart from what it asks: politeness is taken off, and each way to ask gets one name."""

import re
from typing import Final

_SUBJECT: Final = r"(?:i|you|we|one|someone|people)"
_AUX: Final = r"(?:do|does|did|can|could|may|might|should|shall|would|will|must|is|are|was|were)"
_NEED: Final = r"(?:need to|have to|has to|ought to)"

_LEAD_INS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:please|kindly|hi|hello|hey|ok|okay|so|well|and) [, ]*",
        r"(?:can|could|would|will) you (?:please |kindly )?(?=(?!be\b|have\b|not\b)[a-z]+ )",
        r"i (?:would|'d|should) (?:like|love) (?:you )?to (?=(?!know)[a-z]+ )",
        r"i (?:want|need) you to ",
        r"i (?:would|'d|should) (?:like|love|want|need) to know ",
        r"i (?:want|need) to know ",
        r"i (?:wonder|am wondering|was wondering) ",
        r"do you know ",
        r"(?:tell|let) me (?:know )?(?=(?:what|which|who|whom|whose|when|where|why|how|if|whether|by|in|at|for)\b)",
        r"(?:explain|describe)(?: to me)? (?=(?:what|which|why|who|when|where)\b|how (?!to\b))",
        r"(?:explain|describe)(?: to me)? (?=the (?:difference|meaning)\b)",
    )
)
_ASKING: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(?:(?:tell|give|show) me|show|return|give) (?:a list of )?(?=the |all |some |#)", "qwhat "),
        (r"^(?:suggest|recommend|propose) ", "suggest "),
        (r"\b(?:explain|describe) (in #?\w+ \w+) (?=(?:what|which|why|who|when|where|how)\b)", r"\1 "),
        (r", (?:please )?(?:explain|describe) (?=(?:what|which|why|who|when|where|how)\b)", ", "),
        (rf"\bwhat (?:do|should|must|can) {_SUBJECT} do\b(?! to\b)", "qwhat mshould do"), (r"\bby how much\b", "how much"),
        (r"^(?:give|show|write|make|create|get) (?:me )?(?:a|an) (?=(?:summary|translation|explanation|list|description)\b)", ""),
        (r"^(?:calculate|compute|work out|determine|name|list|list out) ", "qwhat "),
        (r"^i (?:need|want|would like|'d like) (?:a|an) ", "qmake a "),
        (r"^(?:write|draft|compose|create|generate|make|prepare|produce)(?: me| us)? ", "qmake "),
        (rf"\bhow often\b|\bhow frequently\b|\bhow many times (?={_AUX})", "qoften"),
        (r"\bfor how long\b|\bhow long\b", "qlong"),
        (rf"\b(qlong|q?how many \w+) (?:does|will|would|did) it take (?:me |you |us |one )?", r"\1 "),
        (r"\bby whom\b", "qwho by"),
        (r"\b(?:at|by) what time\b|\b(?:at )?which time\b|\bwhat time\b|\bby when\b", "qwhen qtime"),
        (r"\b(?:in )?(?:what|which) year\b", "qwhen qyear"),
        (r"\bon (?:what|which) date\b", "qwhen"),
        (r"\b(?:in|at) (?:what|which) place\b", "qwhere"),
        (r"\bfor (?:what|which) reason\b|\b(?:what|which) (?:is|was|are|were) the reasons? (?:that |why |for which )?|\bhow come\b", "qwhy "),
        (r"^what (?:makes|made) ", "qwhy "),
        (r"^what (?:causes|caused) (?=.* to )", "qwhy "),
        (r"\bwhat (?:do|does|should|must) (?:i|you|we|one) (?:have|need)? ?(?:to )?do to\b", "qhow mmust"),
        (r"\bwhat (?:is|are|'s) the (?:way|ways) (?:to|of|for)\b", "qhow"),
        (rf"\bhow (?:do|does|did|can|could|would|may|might|to)(?: {_SUBJECT}\b(?! {_NEED}))?", "qhow"),
        (rf"\bhow (?:should|must|shall)(?: {_SUBJECT}\b)?", "qhow mshould"),
        (rf"\bhow (?=(?:is|are|was|were)\b)", "qhow "),
        (r"\b(?:what|which) (?:kinds?|sorts?|types?) of\b", "qwhat"),
        (rf"\b(?:is|was) it (?:possible|ok|okay|fine|alright|all right|permitted|allowed|permissible) (?:for {_SUBJECT} )?(?:to|that|if)\b", "mmay"),
        (r"^(is|are|am|was|were) ((?:(?!\b(?:it|there)\b).)*?)\b(?:allowed|permitted) to\b", r"mmay \2"),
        (rf"\b(?:(?:do|does|did|will|would) )?{_SUBJECT} {_NEED}\b", "mshould"),
        (r"\b(?:is|are|was|were) (?=.* (?:needed|required)\b)", "be "),
        (r"\b(in|under|over|within|about|than|for|after|before) an? (day|week|month|year|hour|minute|second)\b", r"\1 #1 \2"),
        (r"\b(?:per|each|every|a|an) (day|week|month|year|hour|minute|second)\b", r"per \1"),
        (r"\b(?:daily)\b", "per day"), (r"\bmonthly\b", "per month"), (r"\bweekly\b", "per week"),
        (r"\b(?:yearly|annually|annual)\b", "per year"), (r"\bhourly\b", "per hour"),
        (r"\bat (least|most)\b", r"at\1"),
        (r"\b(?:more|greater|larger|bigger|higher) than (?=#)", "over "),
        (r"\b(?:less|fewer|smaller|lower) than (?=#)", "under "),
        (r"\bin (\w+) (?:format|form)\b", r"in \1"),
        (r"\b(?:with|by) (?:the )?(?:help|use) of\b", "with"),
        (r"\binstead of\b", "insteadof"), (r"\bbecause of\b|\bdue to\b|\bowing to\b", "because of"),
        (r"\bin (?:simple|plain|easy) (?:terms|words|language)\b", "simply"),
        (r"\bin order to\b", "to"), (r"\bout of\b", "from"),
        (r"\b(?:us|american) dollars?\b", "dollar"), (r"\bper cent\b", "percent"), (r"\bdegrees? (?=celsius|fahrenheit)", ""),
    )
)  # fmt: skip
_CONTRACTIONS: Final = tuple(
    (re.compile(pattern), full)
    for pattern, full in (
        (r"\bwon't\b", "will not"), (r"\bcan't\b|\bcannot\b", "can not"), (r"\bshan't\b", "shall not"), (r"n't\b", " not"),
        (r"\b(what|who|where|when|why|how|that|there|it|he|she|which)'s\b", r"\1 is"), (r"\blet's\b", "let us"),
        (r"'re\b", " are"), (r"'ve\b", " have"), (r"'ll\b", " will"), (r"\b(i|you|we|he|she|they)'d\b", r"\1 would"),
        (r"\bi'm\b", "i am"), (r"(?<=s)'(?=\s)|'s\b", " 's "),
    )
)  # fmt: skip


def expand_contractions(text: str) -> str:
    """Lower-case text with full words; what is left of `'s` is a possessive."""
    if "'" in text:
        for pattern, full in _CONTRACTIONS:
            text = pattern.sub(full, text)
    return text


def name_frames(text: str) -> str:
    """Lower-case text with `q...` for what it asks for and `m...` for what may, should or must be."""
    text = text.strip()
    for _ in range(4):
        before = text
        for pattern in _LEAD_INS:
            if found := pattern.match(text):
                text = text[found.end() :]
        if text == before:
            break
    for pattern, name in _ASKING:
        text = pattern.sub(name, text)
    return text
