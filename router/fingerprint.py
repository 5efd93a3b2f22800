"""What shapes the answers to a requested model besides the request itself: cached ones go with it."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from router.backends import Backend
from router.config import Config, TritonTarget
from router.decision import AUTO
from router.scoring import Scorer


class Fingerprint:
    """Configuration, score artifact and model versions, as they are at the moment of the call.

    Equal in replicas that are configured alike, wherever their files lie.
    """

    def __init__(self, config: Config, scorer: Scorer, backends: Mapping[str, Backend]) -> None:
        self._scorer = scorer
        self._config = _digest_config(config)
        targets = [(name, config.targets[name].tier, backends[name]) for name in sorted(backends)]
        names = {AUTO, *(tier for _, tier, _ in targets), *backends}
        self._backends = {
            model: [backend for name, tier, backend in targets if model in {AUTO, tier, name}] for model in names
        }

    def __call__(self, model: str) -> Sequence[str]:
        """See `router.cache.keys.Fingerprint`; of a model that there is not, less is told."""
        versions = [backend.version for backend in self._backends.get(model, ())]
        return [self._config, self._scorer.artifact or "", *versions]


def _digest_config(config: Config) -> str:
    """Of the sections that shape answers; a file counts by its name, a template by its content too."""
    templates = [
        sha256(target.template.read_bytes()).hexdigest()
        for _, target in sorted(config.targets.items())
        if isinstance(target, TritonTarget) and target.template is not None
    ]
    shaping = [config.policy, config.check, config.scoring.use_embedding, config.targets, templates]
    return sha256(msgspec.json.encode(shaping, enc_hook=_name, order="deterministic")).hexdigest()


def _name(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    raise NotImplementedError(f"no fingerprint of {type(value).__name__}")
