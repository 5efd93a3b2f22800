"""The dev site's reload: a changed source starts the command again, and a stop stops it."""

import subprocess
import sys
from pathlib import Path

from deploy.images.parts import ROOT

RELOAD = ROOT / "deploy" / "sites" / "dev" / "reload.py"
COMMAND = "import os, time, router; print(router.SAYS, os.getpid(), flush=True); time.sleep(60)"


def test_a_changed_source_starts_the_command_again(tmp_path: Path) -> None:
    source = tmp_path / "router" / "__init__.py"
    source.parent.mkdir()
    source.write_text("SAYS = 'old'\n")
    command = [sys.executable, "-B", str(RELOAD), sys.executable, "-B", "-c", COMMAND]

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        old, first = process.stdout.readline().split()
        source.write_text("SAYS = 'new'\n")
        new, second = process.stdout.readline().split()
        process.terminate()
        status = process.wait(20)

    assert (old, new) == ("old", "new")
    assert not any(Path(f"/proc/{pid}").exists() for pid in (first, second))
    assert status == 0
