"""Which requests a canary gets: another version of a target, with a share of that target's work."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from edge.engine.settings import ConfigError
from router.config import AnyTarget, Canary
from router.decision import Rules
from router.query import Conversation, EmbeddingQuery, Query
from router.telemetry import Telemetry

_LOOK_S: Final = 0.5
_logger = logging.getLogger(__name__)


class Canaries:
    """For one event loop. `watch()` is a job that never ends, of use where `watched`; its owner cancels it."""

    def __init__(self, targets: Mapping[str, AnyTarget], telemetry: Telemetry) -> None:
        """
        Raises:
            ConfigError: a share file says no share.
        """
        self._sections = {name: target.canary for name, target in targets.items() if target.canary is not None}
        self._shares = {name: read_share(section) for name, section in self._sections.items()}
        self._gauge = telemetry.gauge("canary_share", "Of its target's work that a canary gets", "target")
        self._show()

    @property
    def watched(self) -> bool:
        """Whether a share can change while the router runs."""
        return any(section.share_file for section in self._sections.values())

    @property
    def pairs(self) -> Mapping[str, str]:
        """By canary, the target that it is one of."""
        return {name: section.of for name, section in self._sections.items()}

    def share(self, name: str) -> float:
        """What a canary gets now, in [0, 1]."""
        return self._shares[name]

    def idle(self, name: str) -> bool:
        """Whether a target is a canary that gets nothing."""
        return self._shares.get(name) == 0.0

    def draw(self, query: Query | EmbeddingQuery, rules: Rules, up: Callable[[], Collection[str]]) -> Rules:
        """The rules, with the canaries that the query is drawn for; `up` says which targets are."""
        if not self._shares:
            return rules
        identity, alive = identify(query), up()
        drawn = [name for name, share in self._shares.items() if name in alive and falls_into(share, name, identity)]
        return replace(rules, canaries=frozenset(drawn)) if drawn else rules

    async def watch(self) -> None:
        """Take a share over as soon as its file says another; one that says no share changes nothing."""
        refused: dict[str, str] = {}
        while True:
            await asyncio.sleep(_LOOK_S)
            for name, section in self._sections.items():
                try:
                    share = await asyncio.to_thread(read_share, section)
                except ConfigError as exc:
                    if refused.get(name) != str(exc):  # once, not at every look
                        refused[name] = str(exc)
                        _logger.error("%s keeps its share of %g: %s", name, self._shares[name], exc)  # noqa: TRY400
                    continue
                refused.pop(name, None)
                if share != self._shares[name]:
                    _logger.info("%s gets %g of the work of %s, after %g.", name, share, section.of, self._shares[name])
                    self._shares[name] = share
                    self._show()

    def _show(self) -> None:
        for name, share in self._shares.items():
            self._gauge.labels(name).set(share)


def read_share(section: Canary) -> float:
    """What a canary is to get now.

    Raises:
        ConfigError: its file is there and says no share.
    """
    file = section.share_file
    if file is None or not file.exists():
        return section.share
    return _parse_share(file)


def identify(query: Query | EmbeddingQuery) -> bytes:
    """What decides whose share a query is: its tenant, and where its conversation began.

    It grows with the conversation in no turn, so that one version answers all of them. Vectors of two models cannot be
    compared: there the tenant alone decides, and each one gets all of its vectors from one model.
    """
    match query:
        case EmbeddingQuery():
            beginning = ""
        case Query(prompt=Conversation(messages=messages)):
            first = next((at for at, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
            beginning = "\0".join(message.text for message in messages[: first + 1])
        case Query():
            beginning = query.prompt.text
    return f"{query.tenant}\0{beginning}".encode(errors="surrogatepass")


def falls_into(share: float, name: str, identity: bytes) -> bool:
    """Whether what has this identity is of the share. Who is of a share is also of every larger one."""
    if share in {0.0, 1.0}:
        return share == 1.0
    # blake2b takes up to 64 bytes of key: names have as many at most
    drawn = int.from_bytes(blake2b(identity, key=name.encode(), digest_size=8).digest())
    return drawn < share * 2**64


def _parse_share(file: Path) -> float:
    try:
        text = file.read_text().strip()
        share = float(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file}: cannot read a share ({exc}); write a number from 0 to 1") from exc
    if not 0 <= share <= 1:
        raise ConfigError(f"{file}: {text} is no share; write a number from 0 to 1")
    return share
