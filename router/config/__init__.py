"""The router's configuration: one strict YAML file, read once into a frozen value."""

from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from edge.engine.settings import ConfigError, read_settings
from router.config.cache import Cache
from router.config.lanes import Lane, Pressure, Quotas
from router.config.section import Name, Seconds, Section, Share
from router.config.tracing import Tracing
from router.decision import AUTO, Target, Tier
from router.query import Capability

GENERAL_ARTIFACT: Final = Path(__file__).parents[1] / "scoring" / "general.score.json"
Port = Annotated[int, Meta(ge=1, le=65_535)]
Amount = Annotated[float, Meta(gt=0, le=1e9)]
TokenPrice = Annotated[float, Meta(ge=0, le=1e9)]


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
    """When the full embedding is computed for a score: never, where it can change the decision, always."""

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


class Price(Section, frozen=True, kw_only=True):
    """What a target costs, per million tokens, in any one currency.

    Under a budget an answer without `max_tokens` is cut at `most_completion_tokens`, and that much is set aside for it.
    """

    prompt_per_mtok: TokenPrice
    completion_per_mtok: TokenPrice
    most_completion_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096

    @property
    def longest_answer(self) -> float:
        """What an answer without `max_tokens` may cost."""
        return self.completion_per_mtok * self.most_completion_tokens / 1e6


class Canary(Section, frozen=True, kw_only=True):
    """The target serves another version of the target `of`, and gets `share` of what that would get.

    Whose share a query is depends on its tenant and the beginning of its conversation: the same query, and a
    conversation as it grows, stay with one version. With a `share_file` the number in it counts instead, as soon as it
    changes.
    """

    of: Name
    share: Share = 0.0
    share_file: Path | None = None


class TargetSection(Section, frozen=True, kw_only=True, tag_field="backend"):
    """What every target says of itself.

    A change of `version` makes the caches forget its answers: for a server that does not say which model it serves, or
    for a setting of it that changes them. Generations take slots of `lane`, embeddings those of `embedding_lane`.
    """

    tier: Tier
    supports: frozenset[Capability] = frozenset()
    connect_s: Seconds = 1.0
    price: Price | None = None
    version: Annotated[str, Meta(pattern=r"^\S{1,128}$")] | None = None
    lane: Lane = Lane()
    embedding_lane: Lane = Lane(slots=16, backlog=256)
    canary: Canary | None = None


class OpenAITarget(TargetSection, frozen=True, kw_only=True, tag="openai"):
    """`edge/`, or any OpenAI-compatible server. `url` ends before `/v1`."""

    url: Annotated[str, Meta(pattern=r"^https?://[^/]+(/.*[^/])?$")]
    chat_model: str | None = None
    embedding_model: str | None = None
    key_file: Path | None = None
    ready_path: str = "/health/ready"
    connections: Annotated[int, Meta(ge=1)] = 256


class Cancel(StrEnum):
    """How a running request is ended early: by a request that only our own `chat` knows, or by cancelling its call.

    Up to Triton 25.03 a cancelled call can kill the server, so `request` is right for our `chat` there; the stock vLLM
    backend needs `call`.
    """

    REQUEST = "request"
    CALL = "call"


class Tls(Section, frozen=True, kw_only=True):
    """Mutual TLS: who may have signed the server's certificate, and what this router shows of itself (PEM files)."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


class TritonTarget(TargetSection, frozen=True, kw_only=True, tag="triton"):
    """A Triton server with a `chat` model that speaks the vLLM backend's contract, and/or an `embed` model.

    `template` is the tokenizer_config.json that holds the chat model's template; `temperature` is for requests that
    give none. Without `tls` everything said to it can be read on the way: keep it on one machine or network of yours.
    """

    address: Annotated[str, Meta(pattern=r"^[^/]+:\d+$")]
    chat_model: str | None = "chat"
    embedding_model: str | None = "embed"
    template: Path | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    cancel: Cancel = Cancel.CALL
    tls: Tls | None = None


AnyTarget = OpenAITarget | TritonTarget


class Config(Section, frozen=True):
    """The whole file."""

    targets: Annotated[dict[Name, AnyTarget], Meta(min_length=1)]
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


def load_config(path: Path) -> Config:
    """Read and check a file; relative paths inside it start at its folder.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    config = read_settings(path, Config, fix="`hybrid schema` prints what is allowed")
    complaint = next((c for check in _CHECKS if (c := check(config))), None)
    if complaint:
        raise ConfigError(f"{path}: {complaint}")
    return config


def read_secret(path: Path) -> str:
    """A secret from its file, without the newline at its end.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot read this secret ({exc}); check the path and its permissions") from exc
    if not secret:
        raise ConfigError(f"{path}: this secret is empty; write it on one line")
    return secret


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors and `hybrid schema`."""
    return msgspec.json.schema(Config, schema_hook=_path_schema)


def _path_schema(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path; relative ones start at this file's folder"}
    raise NotImplementedError(f"no JSON Schema for {kind}")


def _check_open(config: Config) -> str | None:
    if config.keys_file is None and not config.listen.loopback:
        return (
            f"listen.host: {config.listen.host!r} is not loopback and no keys_file is set; "
            "set keys_file, or listen on 127.0.0.1"
        )
    return None


def _check_names(config: Config) -> str | None:
    reserved = {AUTO, *Tier}
    taken = next((name for name in config.targets if name in reserved), None)
    if taken is None:
        return None
    return f"targets.{taken}: this name is reserved; choose another than {', '.join(sorted(reserved))}"


def _check_templates(config: Config) -> str | None:
    for name, target in config.targets.items():
        if isinstance(target, TritonTarget) and target.chat_model and target.template is None:
            return f"targets.{name}.template: missing; give the chat model's tokenizer_config.json"
    return None


def _check_supports(config: Config) -> str | None:
    for name, target in config.targets.items():
        for capability in sorted(target.supports):
            if not capability.carried:
                return f"targets.{name}.supports: this router cannot carry {capability!r} to a target; leave it out"
    return None


def _check_budget(config: Config) -> str | None:
    policy = config.policy
    if not isinstance(policy, BudgetPolicy):
        return None
    limits = [limit for limit in (policy.per_hour, policy.per_day) if limit is not None]
    if not limits:
        return "policy: a budget without a limit; set per_hour, per_day or both"
    if policy.state_file is not None and not policy.state_file.parent.is_dir():
        return f"policy.state_file: {policy.state_file.parent} is not a folder; create it"
    for name, target in config.targets.items():
        if target.tier is Tier.CLOUD and target.chat_model and target.price is None:
            return f"targets.{name}.price: missing; a budget needs the price of every cloud target that chats"
        answer = target.price.longest_answer if target.price else 0.0
        if answer > min(limits):
            return (
                f"policy: {min(limits):g} cannot pay one answer of {name} (up to {answer:g}); "
                f"raise it, or lower targets.{name}.price.most_completion_tokens"
            )
    return None


def _check_cache(config: Config) -> str | None:
    cache = config.cache
    if cache.semantic.enabled and config.scoring.embedding is None:
        return "cache.semantic: needs scoring.embedding; name an embedding model's folder there, or disable it"
    known = {AUTO, *Tier, *config.targets}
    stranger = next((name for name in cache.response.routes if name not in known), None)
    if stranger is not None:
        return f"cache.response.routes.{stranger}: no such model; choose from {', '.join(sorted(known))}"
    if cache.tiers.disk is not None and not cache.tiers.disk.folder.is_dir():
        return f"cache.tiers.disk.folder: {cache.tiers.disk.folder} is not a folder; create it"
    return None


def _check_canaries(config: Config) -> str | None:
    for name, target in config.targets.items():
        if target.canary is None:
            continue
        key, stable = f"targets.{name}.canary", config.targets.get(target.canary.of)
        if stable is None or stable.canary is not None or stable.tier is not target.tier:
            return f"{key}.of: {target.canary.of!r} must be a {target.tier} target that is no canary itself"
        if (target.chat_model, target.embedding_model) != (stable.chat_model, stable.embedding_model):
            return (
                f"{key}: {name} and {target.canary.of} must be asked for the same models; versions differ, names do not"
            )
        if config.canary_of(target.canary.of) != name:
            return f"{key}.of: {target.canary.of} has another canary; one is the most"
        file = target.canary.share_file
        if file is not None and not file.parent.is_dir():
            return f"{key}.share_file: {file.parent} is not a folder; create it"
    return None


def _purposes(target: AnyTarget) -> tuple[bool, bool]:
    return bool(target.chat_model), bool(target.embedding_model)


def _check_pressure(config: Config) -> str | None:
    if not config.pressure.enabled:
        return None
    tiers = {target.tier for target in config.chat_targets()}
    lacking = next((tier for tier in Tier if tier not in tiers), None)
    if lacking is None:
        return None
    return f"pressure.enabled: there is no {lacking} target to move load from or to; add one, or disable it"


def _check_files(config: Config) -> str | None:
    shared = config.cache.tiers.shared
    files = {
        "keys_file": config.keys_file,
        "scoring.artifact": config.scoring.artifact,
        "cache.tiers.shared.password_file": shared.password_file if shared else None,
        "tracing.ca_file": config.tracing.ca_file if config.tracing else None,
    }
    for name, target in config.targets.items():
        if isinstance(target, TritonTarget):
            files[f"targets.{name}.template"] = target.template
            if target.tls is not None:
                files[f"targets.{name}.tls.ca_file"] = target.tls.ca_file
                files[f"targets.{name}.tls.certificate_file"] = target.tls.certificate_file
                files[f"targets.{name}.tls.key_file"] = target.tls.key_file
        else:
            files[f"targets.{name}.key_file"] = target.key_file
    for key, file in files.items():
        if file is not None and not file.is_file():
            return f"{key}: {file} is not a file; give an existing one"
    return None


_CHECKS: tuple[Callable[[Config], str | None], ...] = (
    _check_open,
    _check_names,
    _check_supports,
    _check_templates,
    _check_budget,
    _check_cache,
    _check_canaries,
    _check_pressure,
    _check_files,
)
