"""Small score artifacts, fitted in a moment on made-up labels."""

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from router.embedder import open_embedding
from router.query import Conversation, Finish, Message, Prompt, TokenLogprob
from router.scoring import EdgeAnswer
from router.scoring.artifact import Provenance, ScoreArtifact, save_artifact
from router.scoring.dataset import Row
from router.scoring.fit_check import fit_check
from router.scoring.fit_query import fit_query, prepare_prompts

_ROWS = 240


def ask(text: str) -> Prompt:
    """One user turn."""
    return Conversation((Message("user", text),))


def write_artifact(path: Path, *, seed: int = 0, embedding: Path | None = None) -> None:
    """The cloud gains on long sums, mostly, and where the edge was unsure of its answer."""
    rng = np.random.default_rng(seed)
    rows, answers = [], []
    for number in range(_ROWS):
        digits = int(rng.integers(1, 6))
        low = 10 ** (digits - 1)
        one, other = (int(n) for n in rng.integers(low, 10 * low, 2))
        gained = bool(rng.random() < (0.85 if digits > 3 else 0.15))
        prompt = f"what is {one} plus {other}?"
        rows.append(Row(id=str(number), prompt=prompt, weak_correct=0.0, strong_correct=float(gained)))
        answers.append(answer(str(one + other), -2.0 if gained else -0.05))
    identity, encoder = open_embedding(embedding) if embedding else (None, None)
    prepared = prepare_prompts([row.conversation() for row in rows], encoder)
    with threadpool_limits(1):  # threads that spin cost more than they give on so few rows
        edge, cloud = (np.array([getattr(row, side) for row in rows]) for side in ("weak_correct", "strong_correct"))
        fitted = fit_query(prepared, edge, cloud)
        scores = 1 / (1 + np.exp(-fitted.first))
        check = fit_check(rows, answers, scores.tolist())
    save_artifact(
        path,
        ScoreArtifact(
            provenance=Provenance(pair="test", files=[]), embedding=identity, query=fitted.model, check=check
        ),
    )


def answer(text: str, logprob: float, *, ended: bool = True) -> EdgeAnswer:
    """An answer whose tokens are all this likely."""
    rest = float(np.log1p(-np.exp(logprob)))
    tops = tuple(TokenLogprob(token, value) for token, value in (("x", logprob), ("y", rest)))
    places = tuple(TokenLogprob(character, logprob, tops) for character in text)
    return EdgeAnswer(text, places, Finish.STOP if ended else None)
