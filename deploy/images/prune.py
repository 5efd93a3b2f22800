"""
`prune.py LOCK FOLDER`: remove from a part's packages what nothing loads while it serves. Standard library only.

Every entry has its reason. What the parts need all the same is proved by the test suites that run against the images.
"""

import shutil
import sys
from pathlib import Path

EVERYWHERE: dict[str, tuple[str, ...]] = {
    "tests of packages": ("**/tests", "**/test"),
    "headers, stubs and sources that only compilers and editors read": (
        "**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.h", "**/*.hpp", "**/*.c", "**/*.a",
    ),
    "numpy's build tools": ("numpy/distutils", "numpy/f2py"),
    "sample values for OpenAPI documents, which no part serves": ("faker",),
    "onnxruntime once more, for programs in C": ("onnxruntime/capi/libonnxruntime.so*",),
    "onnxruntime's sample models": ("onnxruntime/datasets",),
    "onnxruntime's optimizers for models of other shapes": ("onnxruntime/transformers", "onnxruntime/tools"),
}  # fmt: skip
BY_LOCK: dict[str, dict[str, tuple[str, ...]]] = {
    "router": {
        "quantizing models is the edge's": ("onnxruntime/quantization",),
        "fetching models is the edge's": ("hf_xet", "huggingface_hub"),
        "litestar's command line": ("rich", "rich_click", "pygments", "markdown_it"),
    },
    "edge": {"onnx's reference implementation and test data": ("onnx/backend/test",)},
    "cloud-gpu": {},
    "cloud-cpu": {
        "onnx's reference implementation and test data": ("onnx/backend/test",),
        "stubs for other Pythons": (
            *(f"pytriton/tritonserver/python_backend_stubs/3.{minor}" for minor in (8, 9, 10, 12, 13)),
        ),
    },
}


def prune(lock: str, folder: Path) -> dict[str, int]:
    """Bytes removed by reason."""
    removed = {}
    for reason, patterns in (EVERYWHERE | BY_LOCK[lock]).items():
        removed[reason] = sum(_remove(path) for pattern in patterns for path in sorted(folder.glob(pattern)))
    return removed


def _remove(path: Path) -> int:
    if not path.exists():  # inside a folder that an earlier match took
        return 0
    if path.is_file():
        size = path.stat().st_size
        path.unlink()
        return size
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size


if __name__ == "__main__":
    for why, size in prune(sys.argv[1], Path(sys.argv[2])).items():
        print(f"{size / 1e6:8.1f} MB  {why}")  # noqa: T201 - the build's log
