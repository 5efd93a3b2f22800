"""
Chooses the judge's thresholds on families that it was not fitted to, and writes the file that ships.

`python -m loadtests.judge.ship --help`. Scores are those of the artifact that the product loads, 8-bit weights and all.
"""

import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import msgspec
import numpy as np
from safetensors.torch import load_file

from edge.engine.artifact import ArtifactKind, digest_file, write_manifest
from edge.engine.files import replace_file
from edge.models.catalog import Catalog, Precision, packaged_catalog, read_catalog, write_catalog
from edge.models.judge import packaged_changes, write_judge
from loadtests.judge.changes import write_changes
from loadtests.judge.network import Network
from loadtests.judge.train import split
from loadtests.judge.watch import NEVER, Scores, Watched, score, watch
from router.cache.guard.joining import TYPES, Joiner
from router.cache.guard.judge import Judge
from router.cache.guard.lexicon import Lexicon
from tests.cache.pairs import Pair

NAME: Final = "question-judge"
LOST: Final = 0.01
"""Of the paraphrases that rules explain, the share that the veto may cost."""
LIGHT, MEDIUM = 0.8, 0.5
"""Share of words that two wordings have in common."""
REFERENCE, REFERENCES = Path("tests") / "models" / "data" / "judge_reference.json", 24
_WORD: Final = re.compile(r"\w+")


def open_fitted(fitted: Path, base: Path, work: Path, precision: Precision) -> Judge:
    """Fitted weights as the product would load them."""
    changes = work / "changes.safetensors"
    write_changes(fitted, changes, threshold=0.0, veto=NEVER)
    folder = work / precision
    folder.mkdir()
    write_judge(base, changes, folder, precision)
    write_manifest(folder, kind=ArtifactKind.JUDGE, name=NAME, version="1")
    return Judge.open(folder, Lexicon.load())


def weigh(judge: Judge, watched: Watched) -> Scores:
    """Log-odds of the pairs that the guard would ask about; `NEVER` for the others."""
    asked = watched.strict | ~watched.barred
    scores = [
        judge.weigh(pair.asked, pair.stored) if ask else NEVER for pair, ask in zip(watched.pairs, asked, strict=True)
    ]
    return np.maximum(np.array(scores), NEVER)


def choose_veto(watched: Watched, scores: Scores) -> float:
    """Below it is hardly a paraphrase that rules explain."""
    explained = scores[watched.same & watched.strict]
    return float(np.quantile(explained, LOST)) if len(explained) else NEVER


def tell(watched: Watched, scores: Scores, threshold: float, veto: float) -> None:
    """What passes, by how far the wordings are from each other, and by kind."""
    passed, same = watched.passed(scores, threshold, veto), watched.same
    false = watched.count_false(passed)
    wrong, hard = false.total(), int((~same).sum())
    click.echo(f"threshold {threshold:.2f}, veto {veto:.2f}")
    click.echo(
        f"recall {passed[same].mean():.1%} of {same.sum()}; by rules {(passed & watched.strict)[same].mean():.1%}"
    )
    click.echo(f"false {wrong} of {hard} = {wrong / hard:.2%}, by rules {(passed & watched.strict & ~same).sum()}")
    click.echo(f"by kind {dict(false)} of {dict(Counter(pair.kind for pair in watched.pairs if pair.kind))}")
    click.echo(
        f"facts bar {watched.barred[same].mean():.1%} of paraphrases, {watched.barred[~same].mean():.1%} of hard pairs"
    )
    shares = np.array([_share(pair) for pair in watched.pairs])
    for name, least, most in (("light", LIGHT, 2.0), ("medium", MEDIUM, LIGHT), ("free", 0.0, MEDIUM)):
        some = same & (shares >= least) & (shares < most)
        click.echo(f"{name}: recall {passed[some].mean():.1%} of {some.sum()}")


def _share(pair: Pair) -> float:
    """Of the shorter wording's words, how many the other has."""
    one, other = (set(_WORD.findall(text.lower())) for text in (pair.asked, pair.stored))
    return len(one & other) / max(1, min(len(one), len(other)))


def write_reference(fitted: Path, base: Path, watched: Watched, scores: Scores) -> None:
    """Some pairs over the whole range with what the fitted network says, for the tests."""
    known = np.flatnonzero(scores > NEVER)
    order = known[np.argsort(scores[known])]
    pairs = [watched.pairs[at] for at in order[np.linspace(0, len(order) - 1, REFERENCES).astype(int)]]
    network = Network(load_file(base / "model.safetensors"), TYPES)
    network.load_state_dict(load_file(fitted))
    joiner = Joiner.load(base / "tokenizer.json", Lexicon.load())
    there, back = (
        score(network, texts, joiner, exact=True)
        for texts in ([(pair.asked, pair.stored) for pair in pairs], [(pair.stored, pair.asked) for pair in pairs])
    )
    rows = [
        {"asked": pair.asked, "stored": pair.stored, "logit": round(float(logit), 4)}
        for pair, logit in zip(pairs, (there + back) / 2, strict=True)
    ]
    replace_file(REFERENCE, msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")


def pin(catalog: Catalog) -> Catalog:
    """The catalogue with the digest of the changes that are in the package now."""
    model = catalog.find(NAME)
    prepare = msgspec.structs.replace(model.prepare, changes=digest_file(packaged_changes()))
    return catalog.replacing(msgspec.structs.replace(model, prepare=prepare))


@click.command(context_settings={"show_default": True})
@click.option("--base", type=click.Path(path_type=Path), required=True, help="Folder of all-MiniLM-L6-v2's files.")
@click.option("--fitted", type=click.Path(path_type=Path), required=True, help="What `train` wrote.")
@click.option("--fold", type=int, default=0, help="The families that were held out.")
@click.option("--most-false", type=float, default=0.002, help="Share of the held-out hard pairs that may pass.")
@click.option("--precision", type=click.Choice([str(one) for one in Precision]), default="int8-dynamic")
@click.option("--write", is_flag=True, help="Put it into the package and its digest into the catalogue.")
def main(base: Path, fitted: Path, fold: int, most_false: float, precision: str, *, write: bool) -> None:
    """Choose the thresholds, say what they do, and ship."""
    watched = watch(split(fold)[1])
    with TemporaryDirectory() as work:
        scores = weigh(open_fitted(fitted, base, Path(work), Precision(precision)), watched)
    veto = choose_veto(watched, scores)
    rules = watched.strict & (scores >= veto) & ~watched.same
    left = max(0.0, most_false - rules.sum() / (~watched.same).sum())
    threshold = watched.find_threshold(np.where(watched.strict, NEVER, scores), left)
    tell(watched, scores, threshold, veto)
    if write:
        write_changes(fitted, packaged_changes(), threshold=threshold, veto=veto)
        write_reference(fitted, base, watched, scores)
        write_catalog(packaged_catalog(), pin(read_catalog(packaged_catalog())))


if __name__ == "__main__":
    main()
