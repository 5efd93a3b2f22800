"""Closed classes of English: the words that make sentences rather than name things."""

# ruff: noqa: E501, SIM905 - a class is easier to read and to check as one text

from typing import Final

ARTICLES: Final = frozenset("a an the this that these those".split())
BE: Final = frozenset("be is are am was were been being".split())
PAST: Final = frozenset("did was were had".split())
PRESENT: Final = frozenset("do does is are am has have".split())
DO: Final = frozenset("do does did done doing".split())
HAVE: Final = frozenset("have has had having".split())
MODALS: Final = {
    "can": "may", "could": "may", "may": "may", "might": "may", "should": "should", "shall": "should", "ought": "should",
    "must": "must", "will": "", "would": "",
}  # fmt: skip
AUXILIARIES: Final = BE | DO | HAVE | frozenset(MODALS)
SUBJECTS: Final = frozenset(
    "i you we one me us someone somebody people person persons yourself myself ourselves oneself".split()
)
OTHERS: Final = frozenset("he she they him her them his hers their theirs its my mine your yours our ours".split())
"""Pronouns that say whose; a question about mine is not one about yours."""
EMPTY: Final = frozenset(
    "it there so then well please kindly exactly actually really very quite simply basically thanks"
    " thank hi hello hey dear ok okay either such that who which whom whose whether if of and".split()
)
"""Words that may come and go. What they join is looked at by order and by marker instead."""

NEGATIONS: Final = frozenset("not no without none neither nor cannot".split())
NEGATIVE: Final = NEGATIONS | frozenset(
    "never nothing nobody nowhere hardly barely rarely seldom except unless".split()
)
QUANTIFIERS: Final = frozenset(
    "all every each both any some only even least most more less fewer few many much several another other always"
    " usually sometimes enough again still already yet ever once twice half whole entire maximum minimum almost nearly"
    " atleast atmost insteadof insimpleterms about approximately exactly minimal maximal total average single double triple".split()
)
RELATIONS: Final = {
    **dict.fromkeys("in inside within at".split(), "in"),
    **dict.fromkeys("on upon".split(), "on"),
    **dict.fromkeys("to into onto toward towards".split(), "to"),
    **dict.fromkeys("with using including".split(), "with"),
    **dict.fromkeys("about regarding concerning".split(), "about"),
    **dict.fromkeys("over above".split(), "over"),
    **dict.fromkeys("under below beneath".split(), "under"),
    **dict.fromkeys("during throughout".split(), "during"),
    **{
        word: word
        for word in "of from by than for against between among before after since until per through across around behind"
        " as near via beyond despite like unlike off down up out instead along opposite outside".split()
    },
}
"""Prepositions by what they say of the words behind them."""
LOOSE: Final = frozenset({"in", "on", "of", "for", "with"})
"""Relations that say little by themselves; another preposition may stand for one only where order allows."""
SUBORDINATORS: Final = {
    **dict.fromkeys("if when whenever once provided".split(), "if"),
    **dict.fromkeys("because since".split(), "because"),
    **dict.fromkeys("while whilst".split(), "while"),
    **dict.fromkeys("although though but".split(), "but"),
    "unless": "unless",
}
SYMMETRIC: Final = frozenset(
    "differ difference different distinguish distinction compare comparison equal same".split()
)
"""Whose two sides may change places."""

NUMBER_WORDS: Final = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
        " eighteen nineteen".split()
    )
} | dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
ORDINALS: Final = {
    word: f"{number}th"
    for number, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), start=1
    )
}
UNITS: Final = {
    spelling: names.split()[0]
    for names in (
        "kilometre kilometer km kms", "metre meter m", "centimetre centimeter cm", "millimetre millimeter mm", "mile mi",
        "foot feet ft", "inch in", "yard yd", "kilogram kilogramme kilo kg kgs", "gram gramme g", "milligram mg", "tonne",
        "pound lb lbs", "ounce oz", "litre liter l", "millilitre milliliter ml", "gallon gal", "pint pt", "cup", "second sec s",
        "minute min mins", "hour hr hrs h", "day", "week wk", "month", "year yr yrs", "decade", "century", "celsius c",
        "fahrenheit f", "kelvin", "degree deg", "percent", "kmh kph", "mph", "watt w", "kilowatt kw", "volt v", "byte",
        "kilobyte kb", "megabyte mb", "gigabyte gb", "terabyte tb", "dollar usd", "euro eur", "sterling gbp",
        "yen jpy", "rupee inr", "franc chf", "cent", "calorie kcal", "joule", "hertz hz", "word", "sentence", "paragraph", "page",
        "line", "character", "hectare", "acre",
    )
    for spelling in names.split()
}  # fmt: skip
"""Spellings to one name; abbreviations are read only behind a number."""
CALENDAR: Final = frozenset(
    "january february march april may_x june july august september october november december monday tuesday wednesday"
    " thursday friday saturday sunday today tomorrow yesterday tonight spring summer autumn winter morning evening noon"
    " midnight am pm weekend holiday easter christmas".split()
)
FORMATS: Final = frozenset(
    "json yaml xml csv html markdown table list bullet essay poem story letter email code script summary report diagram"
    " outline paragraph sentence haiku sonnet song speech review tweet article pdf".split()
)
LANGUAGES: Final = frozenset(
    "english french german spanish italian portuguese dutch swedish norwegian danish finnish polish czech russian"
    " ukrainian greek turkish arabic hebrew hindi urdu bengali chinese mandarin cantonese japanese korean vietnamese thai"
    " indonesian swahili latin hungarian romanian".split()
)

UNCHANGED: Final = frozenset("bet burst cost cut hit hurt let put quit read set shut split spread".split())
"""Verbs whose participle looks like the verb."""
IRREGULAR: Final = {
    form: forms.split()[0]
    for forms in (
        "begin began begun", "break broke broken", "bring brought", "build built", "buy bought", "catch caught",
        "choose chose chosen", "come came", "draw drew drawn", "drink drank drunk", "drive drove driven",
        "eat ate eaten", "fall fell fallen", "feed fed", "feel felt", "fight fought", "find found", "fly flew flown",
        "forget forgot forgotten", "freeze froze frozen", "get got gotten", "give gave given", "go went gone",
        "grow grew grown", "hang hung", "hear heard", "hide hid hidden", "hold held", "keep kept", "know knew known",
        "lay laid", "lead led", "leave left", "lend lent", "lose lost", "make made", "mean meant", "meet met", "pay paid",
         "ride rode ridden", "ring rang rung", "rise rose risen", "run ran", "say said", "see saw seen", "sell sold",
        "send sent", "shake shook shaken", "shine shone", "shoot shot", "show shown", "sing sang sung",
        "sink sank sunk", "sit sat", "sleep slept", "speak spoke spoken", "spend spent", "stand stood",
        "steal stole stolen", "stick stuck", "strike struck", "swear swore sworn", "sweep swept", "swim swam swum",
        "take took taken", "teach taught", "tear tore torn", "tell told", "think thought", "throw threw thrown",
        "understand understood", "wake woke woken", "wear wore worn", "win won", "write wrote written", "bite bit bitten",
        "blow blew blown", "burn burnt", "deal dealt", "dig dug", "dream dreamt", "forbid forbade forbidden",
        "forgive forgave forgiven", "learn learnt", "bind bound", "breed bred", "cling clung", "creep crept", "flee fled",
        "grind ground", "kneel knelt", "leap leapt", "seek sought", "shrink shrank shrunk", "slide slid", "spin spun",
        "spring sprang sprung", "sting stung", "swing swung", "weave wove woven", "weep wept", "wind wound",
        "child children", "person persons", "man men", "woman women", "tooth teeth", "goose geese",
        "mouse mice", "ox oxen", "life lives", "wife wives", "knife knives", "leaf leaves", "half halves", "wolf wolves",
        "shelf shelves", "loaf loaves", "criterion criteria", "phenomenon phenomena", "datum data", "analysis analyses",
        "basis bases", "crisis crises", "hypothesis hypotheses", "thesis theses", "index indices", "matrix matrices",
        "vertex vertices", "bacterium bacteria", "potato potatoes", "tomato tomatoes", "hero heroes",
    )
    for form in forms.split()[1:]
}  # fmt: skip
GRADES: Final = {
    "better": ("good", "er"), "best": ("good", "est"), "worse": ("bad", "er"), "worst": ("bad", "est"),
    "further": ("far", "er"), "farther": ("far", "er"), "furthest": ("far", "est"), "farthest": ("far", "est"),
    "elder": ("old", "er"), "eldest": ("old", "est"),
}  # fmt: skip

PASTS: Final = frozenset(form for form, verb in IRREGULAR.items() if not form.endswith("s") and form != verb)
