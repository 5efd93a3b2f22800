"""From which cosine on a stored question is worth a guard's look, by embedding."""

from importlib.resources import files
from typing import Final

import msgspec
from msgspec import Struct

_FILE: Final = "similarity.json"


class Similarity(Struct, frozen=True, forbid_unknown_fields=True):
    """Measured for one embedding on the tuning pairs, with a judge in the guard or without.

    `similarity` keeps at least `kept` of the paraphrases that the guard lets pass; all figures are shares of `pairs`.
    """

    embedding: str
    judged: bool
    similarity: float
    kept: float
    recall: float
    false_hits: float
    pairs: str


def calibrated_similarity(embedding: str, *, judged: bool) -> float | None:
    """The similarity calibrated for the embedding of that name and a guard with a judge or without one.

    None: there is none, and the configuration must say.
    """
    found = (one for one in read_similarities() if (one.embedding, one.judged) == (embedding, judged))
    return next((one.similarity for one in found), None)


def read_similarities() -> list[Similarity]:
    """The table that ships with the package; `loadtests/bench_cache_guard.py --write` makes it."""
    table = files("router.cache.guard").joinpath(_FILE).read_bytes()
    return msgspec.json.decode(table, type=list[Similarity])
