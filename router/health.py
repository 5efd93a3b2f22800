"""Which targets are up: an active probe each, and what the pipeline reports of failed calls."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.backends import Backend
from router.config import Probe
from router.telemetry import Telemetry


@dataclass(slots=True)
class Pulse:
    """One target's state: down after so many failures in a row, up after so many successes. No clock, no I/O."""

    failures_to_down: int
    successes_to_up: int
    up: bool = False
    streak: int = 0

    def record(self, ok: bool) -> bool:
        """Take one observation in; returns whether the target is up now."""
        if ok is self.up:
            self.streak = 0
            return self.up
        self.streak += 1
        if self.streak >= (self.successes_to_up if ok else self.failures_to_down):
            self.up, self.streak = ok, 0
        return self.up

    def fail(self) -> None:
        """The target could not be reached at all: down at once, a probe brings it back."""
        self.up, self.streak = False, 0


class Health:
    """The pulses of all targets. `watch()` is a job that never ends; its owner cancels it."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        probe: Probe,
        telemetry: Telemetry,
        is_idle: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Args:
            backends: By target.
            probe: How often, how long, how many.
            telemetry: Gets who is up.
            is_idle: Whether a target has no work to get at all: nobody misses it while it is down.
        """
        self._is_idle = is_idle
        self._backends = backends
        self._probe = probe
        self._telemetry = telemetry
        self._pulses = {name: Pulse(probe.failures_to_down, probe.successes_to_up) for name in backends}

    def up(self) -> set[str]:
        """Names of the targets that are up."""
        return {name for name, pulse in self._pulses.items() if pulse.up}

    def targets(self) -> dict[str, bool]:
        """Whether each target is up; without those that are down and that nobody misses."""
        up = self.up()
        return {name: name in up for name in self._backends if name in up or not self._is_idle(name)}

    def versions(self) -> dict[str, str]:
        """What each target's models are, as far as it says so."""
        return {name: backend.version for name, backend in self._backends.items()}

    def report_unreachable(self, name: str) -> None:
        """A call found nobody at the other end."""
        self._pulses[name].fail()
        self._telemetry.set_up(name, up=False)

    async def check(self) -> None:
        """Probe every target once, side by side."""
        async with asyncio.TaskGroup() as group:
            for name in self._backends:
                group.create_task(self._check_one(name))

    async def watch(self) -> None:
        """Probe each target every `every_s`, each at its own pace: a hanging one delays no other."""
        async with asyncio.TaskGroup() as group:
            for name in self._backends:
                group.create_task(self._watch_one(name))

    async def _watch_one(self, name: str) -> None:
        while True:
            await self._check_one(name)
            await asyncio.sleep(self._probe.every_s)

    async def _check_one(self, name: str) -> None:
        try:
            async with asyncio.timeout(self._probe.timeout_s):
                ok = await self._backends[name].ready()
        except TimeoutError:
            ok = False
        if self._pulses[name].record(ok) or not self._is_idle(name):
            self._telemetry.set_up(name, up=self._pulses[name].up)
        else:
            self._telemetry.forget_up(name)
