"""
What the semantic cache's guards refuse and let pass, beside a plain cosine threshold.

Pairs come from `tests/cache/pairs`: guards, judge and similarity were fitted to all parts but `proof`, which alone has
bars. The judge is taken from the model store; without one the guard is the strict one, which has no recall to promise.
`--data DIR` holds NAME.jsonl files, rows with a `prompt`: natural questions, each asked once, so that every hit has to
be judged.
"""

import re
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
import numpy as np

from edge.engine.files import replace_file
from loadtests.bench import Row, report
from loadtests.guard_trials import Judged, Passed, Trial, Trials, Vectors, join
from router.cache.evidence import wilson
from router.cache.guard import Guard
from router.cache.guard.judge import Judge
from router.cache.guard.lexicon import Lexicon
from router.cache.guard.reading import normalise
from router.cache.guard.similarity import Similarity, calibrated_similarity, read_similarities
from router.cache.semantic import CANDIDATES
from router.config.cache import SemanticCache
from tests.cache.pairs import TUNED, Part, paraphrases, texts

EMBEDDINGS = ("all-minilm-l6-v2", "all-minilm-l6-v2-fast")
JUDGE = "question-judge"
TABLE = Path("router") / "cache" / "guard" / "similarity.json"
MOST_FALSE, MOST_FALSE_BOUND, LEAST_RECALL = 0.005, 0.01, 0.5
FEWEST_QUESTIONS, MOST_WRONG = 5000, 0.001
KEPT = 0.98
MOST_CALL_MS = 1.0
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s.,;:?!'\"-]")


def calibrate(name: str, trial: Trial, *, judged: bool) -> Similarity:
    """The highest similarity that loses few of the paraphrases that the guard lets pass, in steps of 0.01."""
    passed = np.sort(trial.same.cosines[trial.same.passed])
    similarity = float(np.floor(100 * passed[int((1 - KEPT) * len(passed))]) / 100)
    return Similarity(
        embedding=name,
        judged=judged,
        similarity=similarity,
        kept=round(float((passed >= similarity).mean()), 4),
        recall=round(float(trial.same.hits(similarity).mean()), 4),
        false_hits=round(float(trial.hard.hits(similarity).mean()), 4),
        pairs=f"{', '.join(TUNED)}: {len(trial.same.pairs)} paraphrases, {len(trial.hard.pairs)} hard pairs",
    )


def judge_part(part: Part, name: str, similarity: float, trials: Trials, vectors: Vectors) -> list[Row]:
    """The table's rows for one part and one embedding."""
    if not part.path.is_file():
        return [Row(f"{name}, {part} part: not run", f"{part.path.name} is not there", "-", holds=True)]
    trial = trials.try_part(part, vectors)
    must = part is Part.PROOF
    hits, recall = trial.hard.hits(similarity), float(trial.same.hits(similarity).mean())
    wrong, total = int(hits.sum()), len(hits)
    bound, plain = wilson(wrong, total).high, trial.hard.cosines >= trial.plain_threshold(recall)
    title = f"{name}, {part} part{'' if must else ' (fitted to)'}"
    rows = [
        Row(f"{title}: similarity", f"{similarity:.2f}", "-", holds=True),
        Row(
            f"{title}: recall of {len(trial.same.pairs)} paraphrases",
            f"{recall:.1%}",
            f">= {LEAST_RECALL:.0%}" if must else "-",
            recall >= LEAST_RECALL or not must,
        ),
        Row(
            f"{title}: false hits of {total} hard pairs",
            f"{wrong} = {wrong / total:.2%}",
            f"<= {MOST_FALSE:.1%}" if must else "-",
            wrong / total <= MOST_FALSE or not must,
        ),
        Row(
            f"{title}: Wilson 95% upper bound",
            f"{bound:.2%}",
            f"<= {MOST_FALSE_BOUND:.0%}" if must else "-",
            bound <= MOST_FALSE_BOUND or not must,
        ),
        Row(f"{title}: plain cosine at that recall, false hits", f"{plain.mean():.1%}", "-", holds=True),
    ]
    return rows + _by_kind(title, trial.hard, hits, plain)


def _by_kind(title: str, hard: Judged, hits: Passed, plain: Passed) -> list[Row]:
    every = Counter(pair.kind for pair in hard.pairs)
    guarded, bare = (
        Counter(pair.kind for pair, hit in zip(hard.pairs, found, strict=True) if hit) for found in (hits, plain)
    )
    return [
        Row(
            f"{title}: {kind}, false hits of {count}",
            f"{guarded[kind]}; plain {bare[kind]} = {bare[kind] / count:.0%}",
            "-",
            holds=True,
        )
        for kind, count in every.most_common()
    ]


def read_questions(folder: Path, most_characters: int) -> list[str]:
    """Distinct prompts that the cache would look up."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            prompt = msgspec.json.decode(line).get("prompt")
            if isinstance(prompt, str) and len(prompt) <= most_characters:
                found[prompt] = None
    return list(found)


def find_hits(questions: Sequence[str], guard: Guard, vectors: Vectors, similarity: float) -> list[tuple[str, str]]:
    """Every hit if each were asked once, one after the other: the cache looks at the nearest earlier ones."""
    found = vectors.embed(questions)
    hits = []
    for asked in range(1, len(questions)):
        cosines = found[:asked] @ found[asked]
        for stored in np.argsort(-cosines)[:CANDIDATES]:
            if cosines[stored] >= similarity and guard.refuse(questions[asked], questions[stored]) is None:
                hits.append((questions[asked], questions[stored]))
                break
    return hits


def same_text(asked: str, stored: str) -> bool:
    """Whether two questions are one but for case, spaces and marks between words: then a hit is right."""
    one, other = (_WORD.findall(normalise(text).casefold()) for text in (asked, stored))
    return one == other


def judge_questions(name: str, questions: Sequence[str], hits: Sequence[tuple[str, str]]) -> list[Row]:
    """Rows for natural questions; every hit is printed."""
    doubtful = [hit for hit in hits if not same_text(*hit)]
    for asked, stored in hits:
        verdict = "to be judged" if (asked, stored) in doubtful else "same text"
        click.echo(f"hit ({verdict}):\n  {asked!r}\n  {stored!r}")
    share = len(doubtful) / len(questions)
    return [
        Row(
            f"{name}: natural questions",
            str(len(questions)),
            f">= {FEWEST_QUESTIONS}",
            len(questions) >= FEWEST_QUESTIONS,
        ),
        Row(
            f"{name}: their hits, of which the same text", f"{len(hits)}, {len(hits) - len(doubtful)}", "-", holds=True
        ),
        Row(
            f"{name}: their other hits, all counted wrong", f"{share:.3%}", f"<= {MOST_WRONG:.1%}", share <= MOST_WRONG
        ),
    ]


def measure_guard(questions: Sequence[str]) -> list[Row]:
    """Time and memory of the rules."""
    tracemalloc.start()
    guard = Guard()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    rows = [Row("guard: memory of the lexicon", f"{held / 1e6:.1f} MB", "-", holds=True)]
    for title, some in (("short questions", texts(paraphrases(Part.TUNING))), ("of 400 to 512 characters", questions)):
        if len(some) > 1:
            fresh = _time_calls(Guard().refuse, some, known=False)
            rows.append(Row(f"guard: {title}, both new, p50 / p99", _shown(fresh), "-", holds=True))
            again = _time_calls(guard.refuse, some, known=True)
            holds = float(np.median(again)) < MOST_CALL_MS
            rows.append(
                Row(
                    f"guard: {title}, stored one read before, p50 / p99",
                    _shown(again),
                    f"p50 < {MOST_CALL_MS:g} ms",
                    holds,
                )
            )
    return rows


def measure_judge(judge: Judge) -> list[Row]:
    """What the judge takes where it is asked, on one thread."""
    rows = []
    pairs = [(pair.asked, pair.stored) for pair in paraphrases(Part.BLIND)]
    for least, most in ((5, 8), (10, 14), (20, 30)):
        fits = [pair for pair in pairs if all(least <= len(text.split()) <= most for text in pair)][:300]
        took = []
        for asked, stored in fits:
            started = time.thread_time_ns()
            judge.weigh(asked, stored)
            took.append((time.thread_time_ns() - started) / 1e6)
        if took:
            rows.append(Row(f"judge: two of {least} to {most} words, p50 / p99", _shown(took), "-", holds=True))
    return rows


def _time_calls(refuse: Callable[[str, str], object], some: Sequence[str], *, known: bool) -> list[float]:
    """CPU milliseconds a call."""
    took = []
    for asked, stored in zip(some[:1200:2], some[1:1200:2], strict=False):
        if known:
            refuse(stored, stored + " ")
            refuse(stored + "?", stored)
        started = time.thread_time_ns()
        refuse(asked, stored)
        took.append((time.thread_time_ns() - started) / 1e6)
    return took


def _shown(took: Sequence[float]) -> str:
    return f"{np.median(took):.2f} / {np.quantile(took, 0.99):.2f} ms"


@click.command(context_settings={"show_default": True})
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of natural questions."
)
@click.option("--store", type=click.Path(path_type=Path), default=Path(".models"), help="The model store.")
@click.option(
    "--vectors", type=click.Path(path_type=Path, file_okay=False), help="A folder that keeps vectors between runs."
)
@click.option(
    "--part",
    "parts",
    type=click.Choice([one.value for one in Part]),
    multiple=True,
    default=[one.value for one in Part],
    help="Which pairs.",
)
@click.option("--write", is_flag=True, help="Calibrate the similarity on the tuning part and write the table.")
def main(data: Path | None, store: Path, vectors: Path | None, parts: Sequence[Part], *, write: bool) -> None:
    """Measure the guards."""
    folder = store / JUDGE
    lexicon = Lexicon.load()
    judge = Judge.open(max(folder.iterdir()), lexicon) if folder.is_dir() else None
    guard = Guard(lexicon, judge)
    trials = Trials(guard)
    rows = [Row("judge", "none: the strict guard" if judge is None else "there", "there", holds=judge is not None)]
    questions = read_questions(data, SemanticCache().most_characters) if data else []
    if vectors:
        vectors.mkdir(parents=True, exist_ok=True)
    if data is None:
        click.echo("No DATA is given: natural questions (a folder of .jsonl with `prompt`) are not tried.", err=True)
    for name in EMBEDDINGS:
        if not (store / name).is_dir():
            rows.append(Row(f"{name}: not run", f"{store / name} is not there", "-", holds=True))
            continue
        found = Vectors(name, store, vectors)
        if write:
            write_similarity(calibrate(name, join([trials.try_part(one, found) for one in TUNED]), judged=bool(judge)))
            continue
        similarity = calibrated_similarity(name, judged=judge is not None)
        if similarity is None:
            raise click.ClickException(f"{TABLE} has no {name}: run with --write first")
        for part in map(Part, parts):
            rows += judge_part(part, name, similarity, trials, found)
        if questions:
            rows += judge_questions(name, questions, find_hits(questions, guard, found, similarity))
    if not write:
        rows += measure_guard([one for one in questions if len(one) >= 400])
        rows += measure_judge(Judge.open(max(folder.iterdir()), lexicon)) if judge else []
        sys.exit(report("cache-guard", rows))


def write_similarity(similarity: Similarity) -> None:
    """Put it into the table that ships."""
    table = {(one.embedding, one.judged): one for one in read_similarities()} if TABLE.is_file() else {}
    table[similarity.embedding, similarity.judged] = similarity
    rows = [table[key] for key in sorted(table)]
    replace_file(TABLE, msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")


if __name__ == "__main__":
    main()
