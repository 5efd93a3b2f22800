"""The whole file."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from router.config.cache import Cache
from router.config.lanes import Pressure, Quotas
from router.config.section import Name, Section
from router.config.sections import AnyPolicy, Check, Limits, Listen, Probe, Scoring, ThresholdPolicy
from router.config.targets import AnyTarget
from router.config.tracing import Tracing
from router.decision import Target

Processes = Annotated[int, Meta(ge=1, le=64)]


class Config(Section, frozen=True):
    """The whole file. `processes` serve one port together, and divide slots, backlogs and caches among them."""

    targets: Annotated[dict[Name, AnyTarget], Meta(min_length=1)]
    processes: Processes = 1
    listen: Listen = Listen()
    limits: Limits = Limits()
    probe: Probe = Probe()
    scoring: Scoring = Scoring()
    check: Check = Check()
    policy: AnyPolicy = ThresholdPolicy()
    cache: Cache = Cache()
    quotas: Quotas = Quotas()
    pressure: Pressure = Pressure()
    tracing: Tracing | None = None
    keys_file: Path | None = None

    def chat_targets(self) -> list[Target]:
        """Targets that generate, in the order of the file."""
        return self._order({name for name, target in self.targets.items() if target.chat_model})

    def embedding_models(self) -> dict[str, str]:
        """By target, the model that it embeds with."""
        return {name: t.embedding_model for name, t in self.targets.items() if t.embedding_model}

    def embedding_targets(self) -> list[Target]:
        """Targets that embed, in the order of the file."""
        return self._order({name for name, target in self.targets.items() if target.embedding_model})

    def canary_of(self, name: str) -> str | None:
        """The target that has this one as its canary."""
        return next(
            (other for other, target in self.targets.items() if target.canary and target.canary.of == name), None
        )

    def _order(self, names: Collection[str]) -> list[Target]:
        """A canary comes right before the target that it is one of: who is drawn for it prefers it."""
        stable = [name for name, target in self.targets.items() if target.canary is None]
        pairs = [one for name in stable for one in (self.canary_of(name), name) if one in names]
        return [self._target(name) for name in pairs if name is not None]

    def _target(self, name: str) -> Target:
        section = self.targets[name]
        return Target(name, section.tier, section.supports, section.canary.of if section.canary else None)
