"""The command `hybrid`. Sub-commands load on use, so each container needs only its own part's packages."""

import importlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.engine.settings import ConfigError
from router.admission import digest, new_key
from router.config import Config, json_schema, load_config

Made = TypeVar("Made")

_ELSEWHERE = {
    "edge": "edge.cli:edge",
    "export": "edge.cli:export",
    "quantize": "edge.cli:quantize",
    "models": "edge.models.cli:main",
    "triton": "cloud.cli:triton",
    "fit": "router.evaluation.cli:fit",
    "score": "router.evaluation.cli:score",
    "evaluate": "router.evaluation.cli:evaluate",
    "calibrate": "router.calibration.cli:calibrate",
    "cache": "router.cache_cli:cache",
    "top": "router.top_cli:top",
    "canary": "router.canary_cli:canary",
    "site": "deploy.site.cli:site",
}


class LazyGroup(click.Group):
    """A group whose commands of other parts are imported when they are called or described."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands by name."""
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command.

        Raises:
            ClickException: its part is not installed.
        """
        if name not in _ELSEWHERE:
            return super().get_command(ctx, name)
        module, _, attribute = _ELSEWHERE[name].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            part = module.partition(".")[0]
            raise click.ClickException(
                f"`hybrid {name}` needs the package {exc.name}; install hybrid-inference-router[{part}]"
            ) from exc
        if not isinstance(command, click.Command):
            raise TypeError(f"{_ELSEWHERE[name]} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands without importing those whose part is not installed."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except click.ClickException:
                rows.append((name, "(not installed)"))
                continue
            if command is not None:
                rows.append((name, command.get_short_help_str(80)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hybrid-inference-router")
def main() -> None:
    """One OpenAI-compatible endpoint over a quantized ONNX edge and an NVIDIA Triton cloud.

    \b
    Examples:
      hybrid check router.yaml
      hybrid serve --config router.yaml
      hybrid route "What is 1234 times 88?"
      eval "$(_HYBRID_COMPLETE=bash_source hybrid)"     # completion (also zsh_source, fish_source)
    """


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The router's YAML file.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), help="What to log."
)
def serve(path: Path, log_level: str) -> None:
    """Run the router until SIGTERM or Ctrl-C; then drain and exit 0.

    \b
    Example:
      hybrid serve --config .demo/router.yaml
    """
    from edge.serving import Drain  # noqa: PLC0415 - other commands do not need the server's packages
    from edge.serving import serve as serve_app  # noqa: PLC0415
    from router.app import create_app  # noqa: PLC0415

    config = _load(path)
    _set_up_log(log_level)
    logging.getLogger("router.audit").setLevel(logging.INFO)  # whatever else is left out
    drain = Drain()
    app = _or_exit(lambda: create_app(config, drain))
    if config.keys_file is None:
        click.echo(f"No keys_file is set: open to everyone who reaches {config.listen.host} (loopback only).", err=True)
    listen, limits = config.listen, config.limits
    sys.exit(serve_app(app, drain, host=listen.host, port=listen.port, lead_s=limits.lead_s, drain_s=limits.drain_s))


def _set_up_log(level: str) -> None:
    """Lines of nothing but the message, so that a record need not find out who wrote it, where and when."""
    logging.basicConfig(level=level.upper(), format="%(message)s", stream=sys.stderr)
    # https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path) -> None:
    """Check a router's configuration, and every file that it names.

    \b
    Example:
      hybrid check .demo/router.yaml
    """
    from edge.serving import Drain  # noqa: PLC0415
    from router.app import create_app  # noqa: PLC0415

    config = _load(path)
    _or_exit(lambda: create_app(config, Drain()))
    chat = ", ".join(f"{t.name} ({t.tier})" for t in config.chat_targets()) or "none"
    click.echo(f"{path}: good. Chat targets: {chat}. Listens on {config.listen.host}:{config.listen.port}.")


@main.command()
def schema() -> None:
    """Print the JSON Schema of the router's configuration.

    \b
    Example:
      hybrid schema > router.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@click.option("--tenant", required=True, help="Whose key it is.")
@click.option(
    "--tier", "tiers", multiple=True, type=click.Choice(["edge", "cloud"]), help="Allowed tier; repeat. Default: both."
)
@click.option(
    "--priority",
    default="interactive",
    type=click.Choice(["interactive", "standard", "batch"]),
    help="The highest allowed.",
)
@click.option("--operator", is_flag=True, help="It may see and flush the caches.")
def key(tenant: str, tiers: tuple[str, ...], priority: str, *, operator: bool) -> None:
    """Make an API key: the key goes to its user (stdout, once), the entry into the keys file (stderr).

    \b
    Example:
      hybrid key --tenant shop --tier edge 2>>keys.yaml
    """
    fresh = new_key()
    entry: dict[str, object] = {"tenant": tenant, "tiers": list(tiers) or ["edge", "cloud"], "priority": priority}
    if operator:
        entry["operator"] = True
    click.echo(f"{digest(fresh)}: {json.dumps(entry)}", err=True)
    click.echo(fresh)


@main.command()
@click.argument("prompt")
@click.option("--url", default="http://127.0.0.1:8080", envvar="HYBRID_URL", show_default=True, help="The router.")
@click.option("--key", envvar="HYBRID_API_KEY", help="API key.")
@click.option("--model", default="auto", show_default=True, help="auto, a tier, or a target.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole explanation as JSON.")
def route(prompt: str, url: str, key: str | None, model: str, as_json: bool) -> None:
    """Ask a running router where a prompt would go, and why.

    \b
    Example:
      hybrid route "What is 12 plus 7?"
    """
    import httpx  # noqa: PLC0415

    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.post(f"{url.rstrip('/')}/v1/route", json=body, headers=headers, timeout=10)
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as exc:
        raise click.ClickException(f"{url} did not explain: {exc}; is the router running there?") from exc
    if response.is_error:
        raise click.ClickException(answer.get("error", {}).get("message", response.text))
    click.echo(json.dumps(answer, indent=2) if as_json else _explain(answer))


def _explain(answer: dict[str, Any]) -> str:
    score = answer["score"]
    head = f"{answer['tier']} ({answer['target']}), because {answer['reason']}"
    if score is None:
        return head
    lines = [f"{head}: score {score:.3f} from {answer['evidence']}, threshold {answer['threshold']:.3f}"]
    if answer["shift"]:
        lines.append(f"Load has moved the threshold by {answer['shift']:+.2f} log-odds.")
    if answer["check"]:
        lines.append("The edge's answer would be judged, and the query escalated if it is found wanting.")
    lines.append(f"policy {answer['policy']}, artifact {answer['artifact'] or 'none'}; log-odds by signal:")
    lines += [f"  {value:+7.3f}  {name}" for name, value in answer["signals"].items()]
    return "\n".join(lines)


def _load(path: Path) -> Config:
    return _or_exit(lambda: load_config(path))


def _or_exit(make: Callable[[], Made]) -> Made:
    try:
        return make()
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
