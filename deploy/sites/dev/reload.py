"""`reload.py COMMAND...`: run a command, and start it again whenever a source below the working folder changes."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

PARTS = ("router", "edge", "cloud")
EVERY_S = 1.0
STOP_S = 25.0


def main(command: list[str]) -> NoReturn:
    """Until SIGTERM or Ctrl-C. A command that ends by itself is left down until a change: its log has the mistake."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        seen = _stamps()
        process = subprocess.Popen(command)  # noqa: S603 - the site's own command
        try:
            while _stamps() == seen:
                time.sleep(EVERY_S)
        finally:
            _stop(process)
        print("A source changed; starting again.", file=sys.stderr, flush=True)  # noqa: T201


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stamps() -> set[tuple[Path, int]]:
    return {(file, file.stat().st_mtime_ns) for part in PARTS for file in Path(part).rglob("*.py")}


if __name__ == "__main__":
    main(sys.argv[1:])
