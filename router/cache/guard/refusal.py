"""Why two questions may not share an answer."""

from enum import StrEnum


class Refusal(StrEnum):
    """The first difference found. Metric label."""

    NUMBER = "number"
    DATE = "date"
    UNIT = "unit"
    ENTITY = "entity"
    QUOTE = "quote"
    POLARITY = "polarity"
    QUANTITY = "quantity"
    ORDER = "order"
    RELATION = "relation"
    LANGUAGE = "language"
    FORMAT = "format"
    QUESTION = "question"
    MODALITY = "modality"
    TENSE = "tense"
    PERSON = "person"
    CONTENT = "content"
    LENGTH = "length"
