"""A vector for each word, from the sentence encoder alone: no corpus and no label, so it fits any prompts.

As model2vec does it: every word is embedded by itself, the vectors are cut to their main axes, and weighted by how rare
the word is. Rarity is read off the encoder's vocabulary, which lists words by falling frequency (Zipf's law).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

import numpy as np

from edge.engine.encoder import Encoder
from router.embedder import embed_texts
from router.features import Matrix, Reading
from router.scoring.arrays import Number, write_array
from router.scoring.query_model import WordsFile

_WIDTH: Final = 32
_COMMON: Final = 6_000
_MOST: Final = 16_000
_LONGEST: Final = 24


def tabulate_words(readings: Sequence[Reading], encoder: Encoder) -> WordsFile:
    """The prompts' most frequent words, and the encoder's."""
    ranks = {word: rank for word, rank in encoder.vocabulary().items() if len(word) > 1 and word.isalpha()}
    common = sorted(ranks, key=ranks.__getitem__)[:_COMMON]
    counts = Counter(chain.from_iterable(map(_choose, readings)))
    # a word of one prompt alone teaches nothing, and may be somebody's name
    seen = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))
    words = sorted(islice(dict.fromkeys((*common, *seen)), _MOST))
    rarity = np.log1p([ranks.get(word, len(ranks)) for word in words]).astype(np.float32)
    return WordsFile(words, write_array(_project(embed_texts(encoder, words)) * rarity[:, None], Number.STEPS))


def _choose(reading: Reading) -> set[str]:
    return {token for token in reading.tokens if token.isalpha() and len(token) <= _LONGEST}


def _project(vectors: Matrix) -> Matrix:
    """Onto the main axes, each with a fixed sign."""
    centered = (vectors - vectors.mean(0)).astype(np.float64)
    axes = np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :_WIDTH]
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    projected: Matrix = (centered @ axes).astype(np.float32)
    return projected
