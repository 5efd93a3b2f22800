"""Who is asking: API keys to clients. The file holds SHA-256 digests, so reading it gives nobody a key."""

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edge.engine.settings import read_settings
from router.decision import Label, Tier
from router.errors import AuthenticationError
from router.query import Priority

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
TenantName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Client(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a key may do. `labels` hold for every request made with it; an `operator` may see and flush the caches."""

    tenant: TenantName
    tiers: Annotated[frozenset[Tier], Meta(min_length=1)] = frozenset(Tier)
    priority: Priority = Priority.INTERACTIVE
    labels: frozenset[Label] = frozenset()
    operator: bool = False

    def cap(self, wanted: Priority) -> Priority:
        """The wanted priority, or the key's highest if that is lower."""
        return wanted if wanted.rank >= self.priority.rank else self.priority


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits a request by its `Authorization` header; with no keys, everyone as one anonymous client.

    Without keys the router serves loopback only, so the anonymous client is who runs it: an operator.
    """

    clients: dict[str, Client] | None
    anonymous: Client = field(default_factory=lambda: Client(tenant="anonymous", operator=True))

    def admit(self, authorization: str | None) -> Client:
        """The client behind a `Bearer` key.

        Raises:
            AuthenticationError: there is no key, or not one of ours.
        """
        if self.clients is None:
            return self.anonymous
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise AuthenticationError(
                "You didn't provide an API key. Send it in an Authorization header: `Authorization: Bearer YOUR_KEY`.",
                code="missing_api_key",
            )
        presented = digest(key.strip())
        found: Client | None = None
        # every digest is compared in full, so the time tells nothing of which one matched
        for known, client in self.clients.items():
            if hmac.compare_digest(known, presented):
                found = client
        if found is None:
            raise AuthenticationError("Incorrect API key provided.")
        return found


def digest(key: str) -> str:
    """What the keys file stores of a key: SHA-256 in hex."""
    return sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return f"hy-{secrets.token_urlsafe(32)}"


def load_admission(path: Path | None) -> Admission:
    """Read a keys file (`<sha256 of the key>: {tenant, tiers, priority, labels, operator}`); None admits everyone.

    Raises:
        ConfigError: one line naming file, key, value and fix.
    """
    if path is None:
        return Admission(None)
    clients = read_settings(path, dict[Digest, Client] | None, fix="`hybrid key` makes an entry")  # type: ignore[arg-type]
    return Admission(clients or {})
