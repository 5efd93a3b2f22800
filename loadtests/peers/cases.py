"""What is asked of the contestants, and who is asked it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.peers.contestants import (
    BARE,
    BARE_DISPATCH,
    BARE_OWN_DISPATCH,
    CHECKING_ROUTER,
    EMBEDDING_ROUTER,
    LITELLM,
    NGINX,
    ROUTER,
    SEMANTIC_ROUTER,
    SGLANG,
    VLLM,
    Contestant,
)
from loadtests.peers.upstream import CHUNKS


@dataclass(frozen=True, slots=True)
class Case:
    """A closed load: so many connections that each ask again when they are answered."""

    name: str
    title: str
    contestants: Sequence[Contestant]
    connections: int = 32
    stream: bool = False
    least_characters: int = 0
    longer: int = 1
    """So many times as long as others a turn has to be, since so much is under way when it ends."""
    repeated: bool = False
    """One body again and again, so that an exact cache answers it; else all differ."""

    @property
    def unit(self) -> str:
        """What is counted by the second."""
        return "chunks/s" if self.stream else "requests/s"

    @property
    def units(self) -> int:
        """So many of them make an answer."""
        return CHUNKS if self.stream else 1


_PEERS: Final = (BARE_DISPATCH, NGINX, VLLM, SGLANG, LITELLM)
DISPATCH: Final = Case(
    "dispatch",
    "Plain dispatch, 32 connections",
    (ROUTER, CHECKING_ROUTER, EMBEDDING_ROUTER, SEMANTIC_ROUTER, BARE_OWN_DISPATCH, *_PEERS),
)
HIT: Final = Case("hit", "Exact cache hit, 32 connections", (ROUTER, BARE), repeated=True)
STREAM: Final = Case(
    "sse",
    f"Streams of {CHUNKS} chunks, 256 connections",
    (ROUTER, EMBEDDING_ROUTER, *_PEERS),
    connections=256,
    stream=True,
    longer=2,
)
LONG: Final = Case(
    "long",
    "Prompts of 8 KB, 32 connections",
    (ROUTER, SEMANTIC_ROUTER, *_PEERS),
    least_characters=8192,
)
WIDTHS: Final = tuple(
    Case(
        f"c{count}", f"{count} connection{'s' if count > 1 else ''}", (ROUTER, *_PEERS), count, longer=1 + count // 512
    )
    for count in (1, 8, 64, 512)
)
CLOSED: Final = (DISPATCH, HIT, STREAM, LONG, *WIDTHS)
LATENCY: Final = "latency"
"""The open load: see `loadtests.peers.latency`."""
NAMES: Final = (*(case.name for case in CLOSED), LATENCY)
