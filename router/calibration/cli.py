"""`hybrid calibrate`: labels from the user's own prompts, and the score that is fitted on them."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import httpx

from router.calibration.collection import Collector, Targets, write_labels
from router.calibration.endpoint import Endpoint
from router.calibration.errors import CalibrationError
from router.calibration.journal import Begun, Journal
from router.calibration.judges import CommandJudge, ExactJudge, Judge, JudgeKind, ModelJudge
from router.calibration.prompts import Prompts, Question, read_prompts
from router.evaluation.fitting import Fitting, fit_files
from router.evaluation.options import fitting_options, folder, readable, reported, tell
from router.query import Priority

_RESUME = "run the same command again to go on"


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line says."""

    url: str
    key: str | None
    prompts: Path
    out: Path
    work: Path
    judge: JudgeKind
    extract: str | None
    judge_command: str | None
    judge_timeout_s: float
    judge_model: str | None
    concurrency: int
    limit: int | None
    max_tokens: int | None
    edge: str
    cloud: str
    fitting: Fitting


@click.command()
@click.option("--url", required=True, envvar="HYBRID_URL", help="The router, without /v1.")
@click.option("--key", envvar="HYBRID_API_KEY", help="API key; better in HYBRID_API_KEY.")
@click.option("--prompts", type=readable, required=True, help="JSON lines; see above.")
@click.option("--out", type=readable, required=True, help="The artifact to write.")
@click.option("--work", type=folder, required=True, help="Where answers and labels are kept; made if absent.")
@click.option("--judge", type=click.Choice([*map(str, JudgeKind)]), default=str(JudgeKind.EXACT), show_default=True)
@click.option("--extract", help="exact: a regular expression; its last match is the final answer.")
@click.option("--judge-command", help="command: a program and its arguments.")
@click.option("--judge-timeout-s", type=click.FloatRange(0.1, 3600), default=60.0, show_default=True)
@click.option("--judge-model", help="model: a name that the router knows.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Prompts at a time.")
@click.option("--limit", type=click.IntRange(1), help="Only the first prompts.")
@click.option("--max-tokens", type=click.IntRange(1), help="Cut answers here.  [default: the target's]")
@click.option("--edge", default="edge", show_default=True, help="The tier or target to ask as the edge.")
@click.option("--cloud", default="cloud", show_default=True, help="The tier or target to ask as the cloud.")
@fitting_options
def calibrate(**given: Any) -> None:
    """Fit the score on your own prompts: a running router's edge and cloud answer them, a judge compares.

    A line of PROMPTS has `prompt` or `messages`, and may have `id`, `domain`, and `answer` (the reference, which the
    judge `exact` needs). A few hundred are a good start. A stopped run goes on where it stopped: answers are kept in
    WORK, and so are calibration.jsonl and calibration.answers.jsonl, which `hybrid fit` and `hybrid evaluate` read.

    \b
    Judges:
      exact    the answer equals the reference: case, spacing, thousands commas and a final full stop do not count
      command  a program reads {"prompt","messages","answer","reference"} on stdin and prints a number from 0 to 1
      model    a model grades both answers from 0 to 10, in both orders

    \b
    Examples:
      hybrid calibrate --url http://127.0.0.1:8080 --prompts mine.jsonl --out mine.score.json --work .calibration
      hybrid calibrate ... --extract 'Answer: *(.+)'            # an answer without it is wrong
      hybrid calibrate ... --extract '(?:Answer: *)?(.+)$'      # or the last line
      hybrid calibrate ... --judge command --judge-command 'python grade.py'
      hybrid calibrate ... --judge model --judge-model cloud
    """
    order = Order(judge=JudgeKind(given.pop("judge")), **given)
    with reported(_RESUME):
        prompts = read_prompts(order.prompts)
        data, answers = asyncio.run(_collect(order, prompts))
        pair = order.fitting.pair or f"{order.edge} < {order.cloud} at {order.url}"
        fit_files([data], [answers], replace(order.fitting, pair=pair), order.out)


async def _collect(order: Order, prompts: Prompts) -> tuple[Path, Path]:
    """Label the prompts and write the labels.

    Raises:
        CalibrationError: it cannot go on.
    """
    questions = prompts.questions[: order.limit]
    headers = {"authorization": f"Bearer {order.key}"} if order.key else {}
    headers |= {"x-priority": Priority.BATCH, "cache-control": "no-cache"}
    with Journal(order.work / "journal.jsonl", Begun(prompts.sha256, order.edge, order.cloud)) as journal:
        async with httpx.AsyncClient(base_url=order.url.rstrip("/"), headers=headers) as client:
            endpoint = Endpoint(client)
            judge = _make_judge(order, endpoint)
            collector = Collector(journal, endpoint, judge, Targets(order.edge, order.cloud), order.max_tokens)
            with click.progressbar(length=len(questions), label="prompts", file=sys.stderr) as bar:
                await collector.collect(questions, concurrency=order.concurrency, progress=lambda: bar.update(1))
        _tell_skipped(questions, journal, judge)
        return write_labels(order.work, questions, journal, judge)


def _make_judge(order: Order, endpoint: Endpoint) -> Judge:
    match order.judge:
        case JudgeKind.EXACT:
            return ExactJudge(order.extract)
        case JudgeKind.COMMAND if order.judge_command:
            return CommandJudge(order.judge_command, timeout_s=order.judge_timeout_s)
        case JudgeKind.MODEL if order.judge_model:
            return ModelJudge(endpoint, order.judge_model)
    raise CalibrationError(f"--judge {order.judge}: needs --judge-{order.judge} too")


def _tell_skipped(questions: Sequence[Question], journal: Journal, judge: Judge) -> None:
    """One line a reason: prompts themselves are never shown."""
    reasons = Counter(filter(None, (journal.skip_reason(one.id, judge.key) for one in questions)))
    for reason, count in reasons.most_common():
        tell(f"{count} of {len(questions)} prompts left out: {reason}")
    if len(questions) == reasons.total():
        raise CalibrationError("no prompt could be used")
