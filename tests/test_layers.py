"""Imports point one way: read with `ast` from every module, relative to the layers that CONTRIBUTING draws."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("router", "edge", "cloud")

LAYERS: tuple[tuple[str, ...], ...] = (
    ("router.errors", "router.query", "router.decision", "router.wire"),
    ("router.request_log",),
    ("router.tallies",),
    ("router.config", "router.features", "router.telemetry"),
    (
        "router.cache",
        "router.threads",
        "router.tenants",
        "router.rates",
        "router.concurrency",
        "router.quota",
        "router.pressure",
    ),
    ("router.embedder", "router.turns", "router.backlog", "router.tickets"),
    ("router.admission", "router.scoring", "router.backends", "router.policy", "router.forecast"),
    ("router.processes",),
    (
        "router.health",
        "router.hold",
        "router.routing_metrics",
        "router.slots",
        "router.canaries",
        "router.span_export",
        "router.traced_backend",
    ),
    ("router.replies", "router.lane", "router.estimates", "router.tracing"),
    ("router.lanes", "router.metering"),
    ("router.steering", "router.lane_metrics"),
    ("router.choosing", "router.calls", "router.embedding_calls", "router.fingerprint"),
    ("router.dispatch", "router.flights"),
    ("router.pipeline",),
    ("router.api",),
    ("router.app", "router.evaluation"),
    ("router.calibration", "router.operating"),
    ("router.cache_cli", "router.top_cli", "router.health_cli", "router.canary_cli"),
    ("router.cli",),
    ("router.__main__",),
)
SHARED = {
    "router": ("edge.engine", "edge.bodies", "edge.wire", "edge.serving", "edge.hang_up", "cloud.wire"),
    "cloud": ("edge.engine",),
    "edge": (),
}


def modules() -> list[str]:
    """Every module of the three parts, by dotted name."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for part in PARTS
        for path in sorted((ROOT / part).rglob("*.py"))
        if "model_repository" not in path.parts and "demo" not in path.parts
    ]


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports, of ours."""
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PARTS)


def within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def layer(name: str) -> int | None:
    """A router module's layer."""
    return next((i for i, packages in enumerate(LAYERS) if any(within(name, p) for p in packages)), None)


@pytest.mark.parametrize("module", modules())
def test_parts_import_only_what_is_shared(module: str) -> None:
    part = module.split(".", maxsplit=1)[0]
    foreign = [name for name in imports(module) if name.split(".")[0] != part]

    stray = [name for name in foreign if not any(within(name, shared) for shared in SHARED[part])]

    assert not stray, f"{module} may not import {stray}"


@pytest.mark.parametrize("module", [m for m in modules() if within(m, "edge.engine")])
def test_the_engine_stands_alone(module: str) -> None:
    assert all(within(name, "edge.engine") for name in imports(module))


@pytest.mark.parametrize("module", [m for m in modules() if within(m, "router") and m != "router"])
def test_router_imports_point_down(module: str) -> None:
    own = layer(module)
    assert own is not None, f"{module} stands in no layer; add it to LAYERS"

    for name in imports(module):
        below = layer(name)
        if below is None or any(within(name, p) and within(module, p) for p in LAYERS[own]):
            continue
        assert below < own or (below == own == 0), f"{module} (layer {own}) imports {name} (layer {below})"
