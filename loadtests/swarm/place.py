"""Where a run happens: on which cores, and against which site."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.demo import DemoError
from edge.engine.settings import ConfigError
from loadtests.site import running_site
from loadtests.swarm.run import RunError


def parse_cores(text: str) -> list[int]:
    """Numbers of cores, of those that this process may use.

    Raises:
        ConfigError: it is no list of such numbers.
    """
    allowed = os.sched_getaffinity(0)
    try:
        cores = [int(one) for one in text.split(",") if one]
    except ValueError as exc:
        raise ConfigError(f"--cores: {text!r} is no list of cores; write it like 2,3") from exc
    if strange := set(cores) - allowed:
        raise ConfigError(f"--cores: there is no core {min(strange)} here; choose from {sorted(allowed)}")
    return cores


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Processes that are started inside run on these cores; no cores: on any."""
    before = os.sched_getaffinity(0)
    try:
        if cores:
            os.sched_setaffinity(0, cores)
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def demo_site(generator_cores: Sequence[int]) -> Iterator[str]:
    """The demo's three parts, on the cores that the generator leaves; yields the router's URL.

    Raises:
        RunError: they do not start.
    """
    others = sorted(os.sched_getaffinity(0) - set(generator_cores)) if generator_cores else []
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with pinned(others):
                site = stack.enter_context(running_site(folder))
        except (AssertionError, DemoError) as exc:
            raise RunError(f"the demo site did not start: {' '.join(str(exc).split())}") from exc
        yield site.url
