"""Sections of the file that have no module of their own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from router.config.section import Seconds, Section, Share

GENERAL_ARTIFACT: Final = Path(__file__).parents[1] / "scoring" / "general.score.json"
Port = Annotated[int, Meta(ge=1, le=65_535)]
Amount = Annotated[float, Meta(gt=0, le=1e9)]


class Listen(Section, frozen=True):
    """Where the endpoint is served."""

    host: str = "127.0.0.1"
    port: Port = 8080

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"127.0.0.1", "::1", "localhost"}


class Limits(Section, frozen=True):
    """What one request may take, and how long a stop may last.

    For `lead_s` a stopping router says that it is not ready and still takes requests: as long as the balancer before
    it may need to see that.
    """

    body_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    deadline_s: Seconds = 120.0
    lead_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    drain_s: Seconds = 20.0


class Probe(Section, frozen=True):
    """How a target's readiness is watched."""

    every_s: Seconds = 1.0
    timeout_s: Seconds = 1.0
    failures_to_down: Annotated[int, Meta(ge=1)] = 2
    successes_to_up: Annotated[int, Meta(ge=1)] = 1


class EmbeddingUse(StrEnum):
    """When the full embedding is computed for a score.

    `auto`: where it can change the side of the threshold, unless the site checks the edge's answers: what the edge has
    said then decides near the threshold, and the embedding was measured to add nothing to it.
    """

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


class Scoring(Section, frozen=True):
    """What scores rest on.

    `embedding` is the folder of the embedding model that the artifact was fitted with. Without an artifact it is the
    general one that ships with the router (a stranger to your models: calibrate), and without either every score is
    0.5. The artifact's file is looked at every `reload_s`: a changed one that is good replaces the one in use.
    """

    artifact: Path | None = None
    embedding: Path | None = None
    use_embedding: EmbeddingUse = EmbeddingUse.AUTO
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    reload_s: Seconds = 2.0

    def artifact_file(self) -> Path | None:
        """The artifact to load, if any."""
        return self.artifact or (GENERAL_ARTIFACT if self.embedding else None)


class Check(Section, frozen=True):
    """The answer check: a query that is not surely easy is answered by the edge first, and its answer judged.

    It runs for scores whose distance to the threshold is at most `band` (in log-odds; a large one checks every answer
    of the edge). A stream is held back until the first `hold_tokens` or `hold_ms` are over, whichever comes first.
    """

    enabled: bool = True
    band: Annotated[float, Meta(ge=0, le=100)] = 3.0
    hold_tokens: Annotated[int, Meta(ge=1, le=4096)] = 16
    hold_ms: Annotated[float, Meta(gt=0, le=60_000)] = 300.0


class PolicySection(Section, frozen=True, tag_field="kind"):
    """How scores become tiers."""


class ThresholdPolicy(PolicySection, frozen=True, tag="threshold"):
    """Scores from `threshold` up go to the cloud."""

    threshold: Share = 0.5


class CloudSharePolicy(PolicySection, frozen=True, kw_only=True, tag="cloud_share"):
    """The hardest `share` of the scored requests goes to the cloud, over any `window_requests` of them."""

    share: Share
    window_requests: Annotated[int, Meta(ge=20, le=1_000_000)] = 1000


class BudgetPolicy(PolicySection, frozen=True, kw_only=True, tag="budget"):
    """The cloud is used as far as the money goes, in the currency of the targets' prices, spent evenly.

    Windows are UTC hours and days. `burst_share` of a limit may be spent at once, all of it only by the window's end.
    Scores below `least_score` stay at the edge however much is left. With a `state_file` (of this router alone) what
    was spent outlives a restart.
    """

    per_hour: Amount | None = None
    per_day: Amount | None = None
    burst_share: Annotated[float, Meta(gt=0, le=1)] = 0.05
    least_score: Share = 0.0
    state_file: Path | None = None


AnyPolicy = ThresholdPolicy | CloudSharePolicy | BudgetPolicy
