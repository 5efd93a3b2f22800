"""The edge's commands: `hybrid edge`, `hybrid export`, `hybrid quantize`."""

import logging
import sys
from pathlib import Path

import click

from edge.config import ConfigError, load_config

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
      hybrid edge --config deploy/sites/demo/edge.yaml
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
    sys.exit(serve(app, drain, host=config.listen.host, port=config.listen.port, drain_s=config.limits.drain_s))
