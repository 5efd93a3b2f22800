"""gevent replaces Python's sockets: it must stay in the generator's process."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {"loadtests/swarm/asking.py", "loadtests/swarm/generator.py", "loadtests/swarm/users.py"}


def test_only_the_generator_imports_it() -> None:
    found = set()
    for part in ("router", "edge", "cloud", "deploy", "loadtests", "tests"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if {name.split(".")[0] for name in names} & {"gevent", "locust", "geventhttpclient"}:
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == ALLOWED


def test_command_and_benchmark_run_without_it() -> None:
    code = (
        "import sys, loadtests.swarm.cli, loadtests.bench_load, router.app\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'gevent', 'locust', 'geventhttpclient'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
