"""
Tenants' quotas of several processes, counted together in memory that they share: no process can admit what another one
has already admitted, whichever of them a tenant's connections reach.

A row holds a tenant's two buckets. All that happens to a row happens under one lock of the table's file, which the
system takes back from a process that dies; a request holds it for some microseconds, twice.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final

from router.config.lanes import Quotas
from router.quota import Account, Accounts, Allowance, Bucket, QuotaHold

_ROW: Final = struct.Struct("=16s4d")
_WAYS: Final = 8
"""Rows where a tenant may stand; when others have them all, the one that asked longest ago is forgotten."""
_FREE: Final = bytes(16)


class QuotaTable:
    """Made before the processes are forked; read and written by each. For single-threaded use in each."""

    def __init__(self, most_tenants: int) -> None:
        """There is room for twice as many, since rows are found by digest: sets of eight fill unevenly."""
        self._sets = -(-2 * most_tenants // _WAYS)
        size = self._sets * _WAYS * _ROW.size
        self._file = os.memfd_create("quotas")
        os.ftruncate(self._file, size)
        self._rows = mmap.mmap(self._file, size)

    @contextmanager
    def borrow(self, tenant: str, account: Account) -> Iterator[None]:
        """Give `account` the levels that all processes share, and share what becomes of them when the context ends."""
        digest = blake2b(tenant.encode(), digest_size=16).digest()
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            at, known = self._find(digest)
            if known:
                _, *levels = _ROW.unpack_from(self._rows, at)
                _restore(account.requests, levels[:2])
                _restore(account.tokens, levels[2:])
            try:
                yield
            finally:
                _ROW.pack_into(self._rows, at, digest, *_state(account.requests), *_state(account.tokens))
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _find(self, digest: bytes) -> tuple[int, bool]:
        """Where a tenant's row is, or shall be, and whether it is there."""
        start = int.from_bytes(digest[:8]) % self._sets * _WAYS * _ROW.size
        oldest, asked = start, float("inf")
        for at in range(start, start + _WAYS * _ROW.size, _ROW.size):
            found, _, requests_at, _, tokens_at = _ROW.unpack_from(self._rows, at)
            if found == digest:
                return at, True
            last = max(requests_at, tokens_at) if found != _FREE else -1.0
            if last < asked:
                oldest, asked = at, last
        return oldest, False


class SharedAccounts(Accounts):
    """`Accounts` whose buckets are those of the table."""

    def __init__(self, config: Quotas, table: QuotaTable) -> None:
        super().__init__(config)
        self._table = table

    def reserve(self, tenant: str, tokens: float, now: float) -> QuotaHold:
        """See `Accounts`."""
        with self._table.borrow(tenant, self.account(tenant, now)):
            return super().reserve(tenant, tokens, now)

    def settle(self, hold: QuotaHold, used: float, now: float) -> None:
        """See `Accounts`."""
        hold.account = self.account(hold.tenant, now)  # the one of the reservation may have been forgotten since
        with self._table.borrow(hold.tenant, hold.account):
            super().settle(hold, used, now)

    def allowances(self, tenant: str, now: float) -> tuple[Allowance | None, Allowance | None]:
        """See `Accounts`."""
        with self._table.borrow(tenant, self.account(tenant, now)):
            return super().allowances(tenant, now)


def _restore(bucket: Bucket | None, levels: list[float]) -> None:
    if bucket is not None:
        bucket.state = (levels[0], levels[1])


def _state(bucket: Bucket | None) -> tuple[float, float]:
    return bucket.state if bucket is not None else (0.0, 0.0)
