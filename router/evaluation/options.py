"""What the commands that fit and score share: options, progress, and how they end."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edge.engine.errors import EngineError
from edge.engine.settings import ConfigError
from router.evaluation.embedding import EmbeddingChoice
from router.evaluation.errors import EvaluationError
from router.evaluation.fitting import Fitting

INTERRUPTED = 130
Command = Callable[..., None]

readable = click.Path(path_type=Path, dir_okay=False)
folder = click.Path(path_type=Path, file_okay=False)
data_option = click.option(
    "--data", type=readable, multiple=True, required=True, help="Labelled rows, JSON lines; repeat for several files."
)
answers_option = click.option(
    "--answers", type=readable, multiple=True, help="The edge's answers to the rows, JSON lines; repeatable."
)


def embedding_options(command: Command) -> Command:
    """`--embedding` and `--store` as one argument `embedding`, an `EmbeddingChoice`."""

    @click.option("--embedding", type=folder, help="The embedding model's folder.  [default: the newest in the store]")
    @click.option(
        "--store",
        type=folder,
        default=Path(".models"),
        envvar="HYBRID_MODELS",
        show_default=True,
        help="The model store (or HYBRID_MODELS).",
    )
    @functools.wraps(command)
    def chosen(embedding: Path | None, store: Path, **rest: Any) -> None:
        command(embedding=EmbeddingChoice(embedding, store, rest.pop("no_embedding", False)), **rest)

    return chosen


def fitting_options(command: Command) -> Command:
    """What a fit can be told, as one argument `fitting`."""

    @click.option("--pair", default="", help="Written into the artifact: the two models.")
    @click.option("--source", default="", help="Written into the artifact: where the data is from.")
    @click.option("--license", "licensed", default="", help="Written into the artifact: the data's licence.")
    @click.option("--folds", type=click.IntRange(2, 20), default=5, show_default=True, help="Of the cross-validation.")
    @click.option("--no-embedding", is_flag=True, help="Use cheap text features only.")
    @embedding_options
    @functools.wraps(command)
    def chosen(embedding: EmbeddingChoice, pair: str, source: str, licensed: str, folds: int, **rest: Any) -> None:
        command(fitting=Fitting(embedding, pair, source, licensed, folds), **rest)

    return chosen


@contextmanager
def reported(left: str = "nothing was written") -> Iterator[None]:
    """Every expected end in one line: status 1 for what is wrong, 130 for Ctrl-C; `left` says what that leaves."""
    try:
        yield
    except (ConfigError, EvaluationError, EngineError) as exc:
        raise click.ClickException(str(exc)) from exc
    except ModuleNotFoundError as exc:
        extra = "fit" if (exc.name or "").partition(".")[0] in {"sklearn", "scipy", "joblib"} else "router"
        raise click.ClickException(
            f"This needs the package {exc.name}; install hybrid-inference-router[{extra}]"
        ) from exc
    except KeyboardInterrupt:
        click.echo(f"Stopped; {left}.", err=True)
        sys.exit(INTERRUPTED)


def tell(line: str) -> None:
    """A line of progress, to stderr."""
    click.echo(line, err=True)
