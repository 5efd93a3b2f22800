"""How a question is put, told apart from what it asks: politeness is taken off, and each way to ask gets one name."""

# ruff: noqa: E501 - a pattern is easier to read on one line
import re
from typing import Final

_SUBJECT: Final = r"(?:i|you|we|one|someone|people)"
_AUX: Final = r"(?:do|does|did|can|could|may|might|should|shall|would|will|must|is|are|was|were)"
_NEED: Final = r"(?:need to|have to|has to|ought to)"

_AMOUNTS: Final = (
    "amount|area|balance|budget|charge|cost|debt|deposit|depth|distance|expense|fare|fee|fine|height|income|interest|length"
    "|number|payment|penalty|percentage|population|price|probability|profit|rate|rent|revenue|risk|salary|size|speed|tax"
    "|temperature|toll|value|volume|wage|weight|width"
)
"""Words for what is so much: how much they are is what they are."""
_LEAD_INS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:please|kindly|hi|hello|hey|ok|okay|so|well|and) [, ]*",
        r"(?:can|could|would|will) you (?:please |kindly )?(?=(?!be\b|have\b|not\b)[a-z]+ )",
        r"i (?:would|'d|should) (?:like|love) (?:you )?to (?=(?!know)[a-z]+ )",
        r"i (?:want|need) you to ",
        r"i (?:would|'d|should) (?:like|love|want|need) to know (?:if |whether )?",
        r"i (?:want|need) to know (?:if |whether )?",
        r"i (?:wonder|am wondering|was wondering) (?:if |whether )?",
        r"do you know (?:if |whether )?",
        r"is it true that ",
        r"(?:any idea|does (?:anyone|anybody|someone) know|i am curious|remind me|help me understand) (?:if |whether )?",
        r"(?:can|could) (?:anyone|anybody|someone) (?:please )?(?=tell |explain )",
        r"help me (?:to )?(?=write |draft |compose |create |make |find )",
        r"(?:tell|let|show|teach) me (?:know )?(?:if |whether )",
        r"(?:tell|let|show|teach) me (?:know )?(?=(?:what|which|who|whom|whose|when|where|why|how|by|in|at|for)\b)",
        r"(?:explain|describe)(?: to me)? (?=(?:what|which|why|who|when|where)\b|how (?!to\b))",
    )
)
_ASKING: Final = tuple(
    (tuple(cues.split("|")), re.compile(pattern), name)
    for cues, pattern, name in (
        (
            "need to",
            rf"\b(how (?:much|many) [a-z ]{{1,40}}?) (?:do|does|will|would) {_SUBJECT} need (?=to\b)",
            r"\1 need ",
        ),
        (
            "how ",
            rf"\bhow (?:much|high|large|big|great|low) (is|are|was|were) (?=(?:(?:the|my|a|an) )?(?:\w+ ){{0,2}}(?:{_AMOUNTS})\b)",
            r"what \1 ",
        ),
        ("need to|have to", r"\b(?:do|does) ([^,?]{1,60}?) (?:need|have) to\b", r"mneed \1"),
        ("looking for", r"^i am looking for (?:a|an|some) ", "qmake a "),
        ("way", r"\bin (?:what|which) way\b", "how"),
        ("way", r"\b(?:is|are) there (?:a|any) ways? (?:to|of)\b", "qhow"),
        ("reason", r"\bwhat (?:could|can|might|may) be the reasons? (?:that |why |for )?", "qwhy "),
        ("cause|led to", r"^what (?:causes|caused|led to|has caused) (?=the \w+ of )", "qwhy "),
        (
            "how",
            r"^i (?:want|would like|am trying|need) to (.+?)[.,;] how (?:do|can|should) i do (?:that|this|it)\b",
            r"qhow \1",
        ),
        ("explain|describe", r"^(?:explain|describe)(?: to me)? (?=the (?:difference|meaning)\b)", "what is "),
        (
            "differ",
            r"\bhow (?:do|does|did) (.+?) differ from (\S+(?: \w+){0,2})",
            r"what is the difference between \1 and \2",
        ),
        ("differ", r"\bhow (?:do|does|did) (.+? and .+?) differ\b", r"what is the difference between \1"),
        ("meaning", r"\bwhat is the meaning of\b", "qwhat mean"),
        ("meant", r"\bwhat is meant by\b", "qwhat mean"),
        ("mean", r"\bwhat (?:do|does) (.+?) mean\b", r"qwhat mean \1"),
        ("mean", r"^what (.+?) means\b", r"qwhat mean \1"),
        ("how deep", r"\bhow deep (is|are|was|were)\b", r"what \1 the depth of"),
        ("how wide", r"\bhow wide (is|are|was|were)\b", r"what \1 the width of"),
        ("how heavy", r"\bhow heavy (is|are|was|were)\b", r"what \1 the weight of"),
        ("how tall|how high", r"\bhow (?:tall|high) (is|are|was|were)", r"what \1 the height of"),
        ("how old|what age", r"\bhow old\b|\b(?:at )?what age\b", "qage"),
        ("number of", r"\bwhat (?:is|was) the number of\b", "how many"),
        ("convert|change", r"^(?:convert|change) (#[^,]*?) (?:to|into|in)\b", r"qwhat \1 in"),
        ("how much", r"^how much (?:is|are) (?=#)", "qwhat "),
        ("how many", r"\bhow many ((?:\w+ )?\w+) (?:is|are|make) (?:there )?(?:in )?(#[\d.]+ \w+)", r"qwhat \2 in \1"),
        (
            "tell|give|show|return",
            r"^(?:(?:tell|give|show) me|show|return|give) (?:a list of )?(?=the |all |some |#)",
            "qwhat ",
        ),
        ("suggest|recommend|propose", r"^(?:suggest|recommend|propose) ", "suggest "),
        (
            "explain|describe",
            r"\b(?:explain|describe) (in #?\w+ \w+) (?=(?:what|which|why|who|when|where|how)\b)",
            r"\1 ",
        ),
        ("explain|describe", r", (?:please )?(?:explain|describe) (?=(?:what|which|why|who|when|where|how)\b)", ", "),
        ("what", rf"\bwhat (?:do|should|must|can) {_SUBJECT} do\b(?! to\b)", "qwhat mshould do"),
        ("by how", r"\bby how much\b", "how much"),
        (
            "give|show|write|make|create|get",
            r"^(?:give|show|write|make|create|get) (?:me )?(?:a|an) (?=(?:summary|translation|explanation|list|description)\b)",
            "",
        ),
        (
            "calculate|compute|work out|determine|name|list",
            r"^(?:calculate|compute|work out|determine|name|list|list out) ",
            "qwhat ",
        ),
        ("i ", r"^i (?:need|want|would like|'d like) (?:a|an) ", "qmake a "),
        ("tell|show", r"^(?:tell|show) me (?!about\b|an?\b|how\b)", "qwhat "),
        ("give|tell", r"^(?:give|tell) me (?:a|an) ", "qmake a "),
        (
            "write|draft|compose|create|generate|make|prepare|produce",
            r"^((?:in|on|for|using|with) [^,]{1,40}, )?(?:write|draft|compose|create|generate|make|prepare|produce)(?: me| us)? ",
            r"\1qmake ",
        ),
        (
            "how often|how freq|how many times",
            rf"\bhow often\b|\bhow frequently\b|\bhow many times (?={_AUX})",
            "qoften ",
        ),
        ("how long", r"\bfor how long\b|\bhow long\b", "qlong"),
        ("it take", r"\b(qlong|q?how many \w+) (?:does|will|would|did) it take (?:me |you |us |one )?", r"\1 "),
        ("whom", r"\bby whom\b", "qwho by"),
        (
            "what time|which time|by when",
            r"\b(?:at|by) what time\b|\b(?:at )?which time\b|\bwhat time\b|\bby when\b",
            "qwhen qtime",
        ),
        ("what year|which year", r"\b(?:in )?(?:what|which) year\b", "qwhen qyear"),
        ("what date|which date", r"\bon (?:what|which) date\b", "qwhen"),
        ("what place|which place", r"\b(?:in|at) (?:what|which) place\b", "qwhere"),
        (
            "the reason|which reason|what reason|how come",
            r"\bfor (?:what|which) reason\b|\b(?:what|which) (?:is|was|are|were) the reasons? (?:that |why |for which |for (?=the \w+ of ))?|\bhow come\b",
            "qwhy ",
        ),
        ("what ma", r"^what (?:makes|made) ", "qwhy "),
        ("what cause", r"^what (?:causes|caused) (?=.* to )", "qwhy "),
        ("do to", r"\bwhat (?:do|does|should|must) (?:i|you|we|one) (?:have|need)? ?(?:to )?do to\b", "qhow mmust"),
        ("way", r"\bwhat (?:is|are|'s) the (?:way|ways) (?:to|of|for)\b", "qhow"),
        ("how ", rf"\bhow (?:do|does|did|can|could|would|may|might|to)(?: {_SUBJECT}\b(?! {_NEED}))?", "qhow"),
        ("how ", rf"\bhow (?:should|must|shall)(?: {_SUBJECT}\b)?", "qhow mshould"),
        ("how ", r"\bhow (?=(?:is|are|was|were)\b)", "qhow "),
        ("kind|sort|type", r"\b(?:what|which) (?:kinds?|sorts?|types?) of\b", "qwhat"),
        (
            "possible|ok|fine|right|permi|allowed",
            r"\b(?:is|was|would) it (?:be )?(?:possible|ok|okay|fine|alright|all right|permitted|allowed|permissible) (?:for ((?:(?!to\b)\S+ ){1,6}))?(?:to|that|if)\b",
            r"mmay \1",
        ),
        (
            "ed to|able to",
            r"^(is|are|am|was|were) ((?:(?!\b(?:it|there)\b).)*?)\b(?:allowed|permitted|able) to\b",
            r"mmay \2",
        ),
        ("need to|have to|has to|ought to", rf"\b(?:(?:do|does|did|will|would) )?{_SUBJECT} {_NEED}\b", "mneed"),
        (
            "day|week|month|year|hour|minute|second",
            r"\b(in|under|over|within|about|than|for|after|before) an? (day|week|month|year|hour|minute|second)\b",
            r"\1 #1 \2",
        ),
        (
            "day|week|month|year|hour|minute|second",
            r"\b(?:per|each|every|a|an) (day|week|month|year|hour|minute|second)\b",
            r"per \1",
        ),
        ("daily", r"\b(?:daily)\b", "per day"),
        ("monthly", r"\bmonthly\b", "per month"),
        ("weekly", r"\bweekly\b", "per week"),
        ("annual|yearly", r"\b(?:yearly|annually|annual)\b", "per year"),
        ("hourly", r"\bhourly\b", "per hour"),
        ("at least|at most", r"\bat (least|most)\b", r"at\1"),
        ("than #", r"\b(?:more|greater|larger|bigger|higher) than (?=#)", "over "),
        ("than #", r"\b(?:less|fewer|smaller|lower) than (?=#)", "under "),
        ("format|form", r"\bin (\w+) (?:format|form)\b", r"as \1"),
        ("help of|use of", r"\b(?:with|by) (?:the )?(?:help|use) of\b", "with"),
        ("instead", r"\binstead of\b", "insteadof"),
        ("because|due|owing", r"\bbecause of\b|\bdue to\b|\bowing to\b", "because of"),
        ("in simple|in plain|in easy", r"\bin (?:simple|plain|easy) (?:terms|words|language)\b", "in insimpleterms"),
        ("in order", r"\bin order to\b", "to"),
        ("out of", r"\bout of\b", "from"),
        ("dollar", r"\b(?:us(?:_x)?|american) dollars?\b", "dollar"),
        ("cent", r"\bper cent\b", "percent"),
        ("degree", r"\bdegrees? (?=celsius|fahrenheit)", ""),
    )
)
"""Cues, without any of which a pattern need not be tried; the pattern; what it becomes. In this order."""
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
    for cues, pattern, name in _ASKING:
        if any(cue in text for cue in cues):
            text = pattern.sub(name, text)
    return text
