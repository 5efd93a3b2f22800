"""Two native libraries of the router share pybind11's registers: in one order of import some releases crash."""

import subprocess
import sys


def test_usearch_and_onnxruntime_can_be_imported_in_either_order() -> None:
    for code in ("import usearch.index, onnxruntime", "import onnxruntime, usearch.index"):
        assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0, code
