"""What the types cannot say of a file: each check gives the first complaint, naming key, value and fix, or None."""

from collections.abc import Callable
from typing import Final

from router.config.cache import LEAST_DISK_BYTES, LEAST_MEMORY_BYTES
from router.config.file import Config
from router.config.sections import BudgetPolicy
from router.config.targets import AnyTarget, TritonTarget
from router.decision import AUTO, Tier


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
    limits = [limit / config.processes for limit in (policy.per_hour, policy.per_day) if limit is not None]
    if not limits:
        return "policy: a budget without a limit; set per_hour, per_day or both"
    if policy.state_file is not None and not policy.state_file.parent.is_dir():
        return f"policy.state_file: {policy.state_file.parent} is not a folder; create it"
    shared = " (a process's part)" if config.processes > 1 else ""
    for name, target in config.targets.items():
        if target.tier is Tier.CLOUD and target.chat_model and target.price is None:
            return f"targets.{name}.price: missing; a budget needs the price of every cloud target that chats"
        answer = target.price.longest_answer if target.price else 0.0
        if answer > min(limits):
            return (
                f"policy: {min(limits):g}{shared} cannot pay one answer of {name} (up to {answer:g}); "
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


def _check_processes(config: Config) -> str | None:
    """Every process needs a part of what is divided, and some things cannot be."""
    count = config.processes
    if count == 1:
        return None
    fix = f"raise it, or set processes below {count}"
    for name, target in config.targets.items():
        for key, lane, used in (
            ("lane", target.lane, target.chat_model),
            ("embedding_lane", target.embedding_lane, target.embedding_model),
        ):
            where, slots = ("adaptive.most", lane.adaptive.most) if lane.adaptive else ("slots", lane.slots)
            if used and slots < count:
                return f"targets.{name}.{key}.{where}: {slots} cannot be divided by {count} processes; {fix}"
    tiers = config.cache.tiers
    for key, tier, least in (("memory", tiers.memory, LEAST_MEMORY_BYTES), ("disk", tiers.disk, LEAST_DISK_BYTES)):
        if tier is not None and tier.most_bytes // count < least:
            return f"cache.tiers.{key}.most_bytes: {tier.most_bytes} leaves each process less than {least}; {fix}"
    if config.cache.semantic.enabled:
        return "cache.semantic.enabled: its index belongs to one process; set processes to 1 and run replicas instead"
    if isinstance(config.policy, BudgetPolicy) and config.policy.state_file is None:
        return "policy.state_file: missing; of several processes one that is restarted must know what it has spent"
    return None


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


CHECKS: Final[tuple[Callable[[Config], str | None], ...]] = (
    _check_open,
    _check_names,
    _check_supports,
    _check_templates,
    _check_budget,
    _check_cache,
    _check_canaries,
    _check_pressure,
    _check_processes,
    _check_files,
)
