"""README's examples are true as printed."""

import re
import subprocess
import sys

import msgspec
import yaml

from deploy.demo import ROOT
from router.config import Config
from tests.site.parts import Site

README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_client_code_runs(site: Site) -> None:
    code = block("python").replace("http://127.0.0.1:8080", site.url)

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] in {"edge", "cloud"}
    assert result.stdout.strip().endswith("7")


def test_the_configuration_is_one() -> None:
    config = yaml.safe_load(block("yaml"))

    msgspec.convert(config, Config, dec_hook=lambda kind, value: kind(value))


def test_route_explains_from_the_command_line(site: Site) -> None:
    command = [sys.executable, "-m", "router", "route", "What is 4817 minus 3956?", "--url", site.url]

    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)

    assert result.returncode == 0
    assert re.match(
        r"(edge|cloud) \((edge|cloud)-demo\), because (easy|hard|checked): score 0\.\d+ from \w+, threshold 0\.\d+\n",
        result.stdout,
    )
    assert re.search(r"^policy threshold, artifact [0-9a-f]{12}; ", result.stdout, re.MULTILINE)
    assert re.search(r"^  +[+-]\d+\.\d{3}  \w", result.stdout, re.MULTILINE)


def test_it_is_short_and_names_no_machine() -> None:
    assert README.count("\n") < 150
    assert "/work" not in README
