"""The command `hybrid` without anything running."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from edge.engine.settings import ConfigError
from router.admission import digest, load_admission
from router.cli import main

ROOT = Path(__file__).parents[2]
GOOD = 'targets: {shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}}'


def run(*arguments: str) -> Result:
    """One call, in this process."""
    return CliRunner().invoke(main, arguments)


def test_check_says_good_or_names_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(GOOD)
    good = run("check", str(path))
    path.write_text(GOOD.replace("tier", "teir"))
    bad = run("check", str(path))

    assert good.exit_code == 0
    assert "shop (edge)" in good.output
    assert bad.exit_code == 1
    assert "router.yaml" in bad.output
    assert "teir" in bad.output
    assert bad.output.count("\n") == 1


def test_schema_is_json_schema() -> None:
    schema = json.loads(run("schema").output)

    assert schema["$ref"] == "#/$defs/Config"


def test_key_gives_the_key_once_and_an_entry_that_the_keys_file_takes(tmp_path: Path) -> None:
    result = run("key", "--tenant", "shop", "--tier", "edge", "--priority", "batch")

    key, entry = result.stdout.strip(), result.stderr
    path = tmp_path / "keys.yaml"
    path.write_text(entry)
    assert key not in entry
    assert list(yaml.safe_load(entry)) == [digest(key)]
    assert load_admission(path).admit(f"Bearer {key}").tenant == "shop"


def test_route_to_nobody_says_so() -> None:
    result = run("route", "hello", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert "is the router running there?" in result.output


@pytest.mark.parametrize(
    "command", ["check", "edge", "export", "key", "models", "quantize", "route", "schema", "serve", "triton"]
)
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")

    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert command in run("--help").output


def test_help_needs_no_part_but_the_base() -> None:
    code = (
        "import sys; sys.modules['litestar'] = sys.modules['onnxruntime'] = sys.modules['tritonclient'] = None\n"
        "from router.cli import main; main(['--help'])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )

    assert result.returncode == 0
    assert "serve" in result.stdout


def test_a_config_error_is_no_traceback(tmp_path: Path) -> None:
    result = run("serve", "--config", str(tmp_path / "absent.yaml"))

    assert result.exit_code == 1
    assert not isinstance(result.exception, ConfigError)
    assert "absent.yaml: cannot be read" in result.output
