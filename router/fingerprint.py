"""What shapes the answers to a requested model besides the request itself: cached ones go with it."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec.structs import replace

from router.backends import Backend
from router.config import Config, TritonTarget
from router.decision import AUTO, Rules
from router.scoring import Scorer


class Fingerprint:
    """Configuration, score artifact and model versions, as they are at the moment of the call.

    Equal in replicas that are configured alike, wherever their files lie.
    """

    def __init__(self, config: Config, scorer: Scorer, backends: Mapping[str, Backend]) -> None:
        self._scorer = scorer
        self._config = _digest_config(config)
        canaries = {name for name, target in config.targets.items() if target.canary is not None}
        targets = [(name, config.targets[name].tier, backends[name]) for name in sorted(backends)]
        names = {AUTO, *(tier for _, tier, _ in targets), *backends}
        self._stable = {
            model: [
                backend
                for name, tier, backend in targets
                if model == name or (model in {AUTO, tier} and name not in canaries)
            ]
            for model in names
        }
        self._canaries = {name: backends[name] for name in sorted(canaries)}

    def __call__(self, rules: Rules) -> Sequence[str]:
        """See `router.cache.keys.Fingerprint`; of a model that there is not, less is told.

        A canary's version counts for those drawn for it alone: what comes and goes beside a target leaves the answers
        of that one as they are.
        """
        versions = [backend.version for backend in self._stable.get(rules.model, ())]
        if rules.canaries:
            versions += [backend.version for name, backend in self._canaries.items() if name in rules.canaries]
        return [self._config, self._scorer.artifact or "", *versions]


def _digest_config(config: Config) -> str:
    """Of the sections that shape answers; a file counts by its name, a template by its content too."""
    templates = [
        sha256(target.template.read_bytes()).hexdigest()
        for _, target in sorted(config.targets.items())
        if isinstance(target, TritonTarget) and target.template is not None
    ]
    targets = {
        name: replace(target, canary=None) if target.canary else target for name, target in config.targets.items()
    }
    shaping = [config.policy, config.check, config.scoring.use_embedding, targets, templates]
    return sha256(msgspec.json.encode(shaping, enc_hook=_name, order="deterministic")).hexdigest()


def _name(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    raise NotImplementedError(f"no fingerprint of {type(value).__name__}")
