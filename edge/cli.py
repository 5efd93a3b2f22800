"""The edge's commands: `hybrid edge`, `hybrid export`, `hybrid quantize`."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO, TypeVar

import click

from edge.config import load_config
from edge.engine.settings import ConfigError

F = TypeVar("F", bound=Callable[..., object])

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The edge's YAML file.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), help="What to log."
)
def edge(path: Path, log_level: str) -> None:
    """Serve a quantized model until SIGTERM or Ctrl-C; then drain and exit 0.

    \b
    Example:
      hybrid edge --config .demo/edge.yaml
    """
    from edge.app import create_app  # noqa: PLC0415 - `--help` needs none of the server's packages
    from edge.engine.errors import EngineError  # noqa: PLC0415
    from edge.engine.template import TemplateError  # noqa: PLC0415
    from edge.serving import Drain, serve  # noqa: PLC0415

    logging.basicConfig(level=log_level.upper(), format="%(message)s", stream=sys.stderr)
    drain = Drain()
    try:
        config = load_config(path)
        app = create_app(config, drain)
    except (ConfigError, EngineError, TemplateError) as exc:
        raise click.ClickException(str(exc)) from exc
    listen, limits = config.listen, config.limits
    sys.exit(serve(app, drain, host=listen.host, port=listen.port, lead_s=limits.lead_s, drain_s=limits.drain_s))


def _source_options(command: F) -> F:
    """Options that both ways to make an artifact share."""
    options = (
        click.option("--checkpoint", type=_FOLDER, required=True, help="A checkpoint in Hugging Face layout."),
        click.option("--name", help="The artifact's name.  [default: the checkpoint folder's]"),
        click.option("--version", default="1", show_default=True, help="The artifact's version."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_source_options
@click.option(
    "--precision", type=click.Choice(["float32", "float16", "int8", "int4"]), default="int8", show_default=True
)
@click.option("--out", type=_FOLDER, required=True, help="The artifact's folder, which must not exist.")
def export(checkpoint: Path, name: str | None, version: str, precision: str, out: Path) -> None:
    """Turn a Llama- or Qwen2-shaped checkpoint into an ONNX artifact; no PyTorch needed.

    \b
    Example:
      hybrid export --checkpoint SmolLM2-135M-Instruct --precision int4 --out models/smollm2/1
    """
    with _readable_errors():
        _write_artifact(checkpoint, name, version, precision, out)
    click.echo(f"{out}: {_megabytes(out):.1f} MB, {precision}")


@click.command()
@_source_options
@click.option("--precision", type=click.Choice(["int8", "int4"]), default="int8", show_default=True)
@click.option("--out", type=_FOLDER, help="The artifact's folder, which must not exist.  [default: report only]")
@click.option("--prompts", type=click.File(), help="Prompts to compare on, one a line.  [default: eight of our own]")
def quantize(
    checkpoint: Path, name: str | None, version: str, precision: str, out: Path | None, prompts: TextIO | None
) -> None:
    """Quantize a checkpoint, and report how far it drifts from the float model.

    \b
    Example:
      hybrid quantize --checkpoint edge/demo --precision int4
    """
    from edge.models.drift import PROMPTS  # noqa: PLC0415

    texts = [line.strip() for line in prompts if line.strip()] if prompts else list(PROMPTS)
    with _readable_errors(), TemporaryDirectory() as scratch:
        original, quantized = Path(scratch) / "float32", Path(scratch) / precision
        _write_artifact(checkpoint, name, version, "float32", original)
        _write_artifact(checkpoint, name, version, precision, quantized)
        click.echo(_describe_drift(original, quantized, texts))
        if out is not None:
            _write_artifact(checkpoint, name, version, precision, out)
            click.echo(f"{out}: {_megabytes(out):.1f} MB, {precision}")


def _write_artifact(checkpoint: Path, name: str | None, version: str, precision: str, out: Path) -> None:
    """Export beside `out`, then rename: a reader sees all of it or nothing."""
    from edge.engine.artifact import ArtifactKind, write_manifest  # noqa: PLC0415 - onnx is slow to import
    from edge.models.catalog import Precision  # noqa: PLC0415
    from edge.models.llama import export_checkpoint  # noqa: PLC0415

    if out.exists():
        raise click.ClickException(f"{out}: exists already; remove it, or name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        export_checkpoint(checkpoint, folder, Precision(precision))
        label = name or checkpoint.resolve().name
        source = {"from": f"the checkpoint {label}", "precision": precision}
        write_manifest(folder, kind=ArtifactKind.CHAT, name=label, version=version, source=source)
        folder.rename(out)


def _describe_drift(original: Path, quantized: Path, texts: list[str]) -> str:
    from edge.engine.template import ChatTemplate  # noqa: PLC0415
    from edge.engine.tokens import Tokenizer  # noqa: PLC0415
    from edge.models.drift import measure_drift  # noqa: PLC0415

    template = ChatTemplate.load(original / "tokenizer_config.json")
    tokenizer = Tokenizer(original / "tokenizer.json")
    rendered = [template.render([{"role": "user", "content": text}]) for text in texts]
    drift = measure_drift(original, quantized, [tokenizer.encode(text, add_special=False) for text in rendered])
    return "\n".join(
        [
            f"{quantized.name} beside float32, {len(texts)} prompts, {drift.places} tokens:",
            f"  size                    {_megabytes(quantized):8.1f} MB instead of {_megabytes(original):.1f} MB",
            f"  same greedy token       {drift.agreement:8.2%}",
            f"  mean KL divergence      {drift.divergence_nats:8.1e} nats",
            f"  largest logit changed by {drift.largest_difference:7.2f}",
        ]
    )


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 1e6


@contextmanager
def _readable_errors() -> Iterator[None]:
    """What a person can mend is one line, not a traceback."""
    from edge.engine.errors import EngineError  # noqa: PLC0415
    from edge.engine.template import TemplateError  # noqa: PLC0415
    from edge.models.errors import ModelsError  # noqa: PLC0415

    try:
        yield
    except (EngineError, TemplateError, ModelsError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
