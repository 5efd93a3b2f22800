"""A vector for each word, from the sentence encoder alone: no corpus and no label, so it fits any prompts.

As model2vec does it: every word is embedded by itself, the vectors are cut to their main axes, and weighted by how rare
the word is. Rarity is read off the encoder's vocabulary, which lists words by falling frequency (Zipf's law).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edge.engine.encoder import Encoder
from router.features import Matrix, Reading
from router.scoring.arrays import Number, write_array
from router.scoring.embedding import embed_texts
from router.scoring.query_model import WordsFile

WIDTH: Final = 64
_COMMON: Final = 12_000
_MOST: Final = 24_000


def tabulate_words(readings: Sequence[Reading], encoder: Encoder) -> WordsFile:
    """The words of the prompts, and the encoder's common ones."""
    ranks = {word: rank for word, rank in encoder.vocabulary().items() if len(word) > 1 and word.isalpha()}
    common = sorted(ranks, key=ranks.__getitem__)[:_COMMON]
    seen = sorted({token for reading in readings for token in reading.tokens if token.isalpha() and len(token) < 24})
    words = sorted({*common, *seen[: _MOST - len(common)]})
    vectors = embed_texts(encoder, words)
    rarity = np.log1p([ranks.get(word, len(ranks)) for word in words]).astype(np.float32)
    return WordsFile(words, write_array(_project(vectors) * rarity[:, None], Number.FLOAT16))


def _project(vectors: Matrix) -> Matrix:
    """Onto the main axes, each with a fixed sign."""
    centered = vectors - vectors.mean(0)
    axes = np.linalg.eigh((centered.T @ centered).astype(np.float64))[1][:, ::-1][:, :WIDTH]
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    projected: Matrix = (centered @ axes).astype(np.float32)
    return projected
