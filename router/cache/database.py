"""The disk tier's SQLite file, synchronously: one connection that writes, and one that reads beside it."""

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from router.cache import CacheTierError, Flush, Kind, Record, Selector
from router.cache.sealing import seal

SCHEMA_VERSION: Final = 1
_APPLICATION: Final = 0x48494352
_PAGE_BYTES: Final = 4096
_LARGEST_VALUE_BYTES: Final = 16_777_216
_PARTS: Final = 32
"""The limit in so many parts: two stay free for the log, none is larger than what one transaction writes."""
_EVICTED: Final = 32
_EXPIRED: Final = 32
_USED_BITS: Final = 65_536
_LATEST_ID: Final = 2**62

_SCHEMA: Final = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL,
    tags TEXT NOT NULL, stored_at REAL NOT NULL, expires_at REAL NOT NULL, sealed BLOB NOT NULL
);
CREATE INDEX by_kind ON records (kind);
CREATE INDEX by_expiry ON records (expires_at);
CREATE TABLE flushes (selector TEXT PRIMARY KEY, at REAL NOT NULL);
"""
_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SELECTED: Final = """
    stored_at <= :at AND (:tenant IS NULL OR tenant = :tenant) AND (:model IS NULL OR model = :model)
    AND (:tag IS NULL OR (json_valid(tags) AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)))
"""

# a file that SQLite calls this is of no more use; after any other error the same file may work again
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    }
)

_logger = logging.getLogger(__name__)


class UnusableError(CacheTierError):
    """The file is damaged, of another version, or too large: only a new one helps."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the file has of a key, unverified."""

    id: int
    sealed: bytes


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's and the system's errors as ours."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        unusable = code & 0xFF in _UNUSABLE or code == sqlite3.SQLITE_IOERR_SHORT_READ
        raise (UnusableError if unusable else CacheTierError)(f"disk: {exc}") from exc
    except UnicodeDecodeError as exc:  # an error's message quotes a damaged schema
        raise UnusableError("disk: the schema is damaged") from exc
    except (OSError, ValueError, OverflowError, MemoryError) as exc:
        raise CacheTierError(f"disk: {exc}") from exc


class Used:
    """Which rows were read since eviction last came by. A row may pass for another's use, which spares it once."""

    def __init__(self) -> None:
        self._bits = bytearray(_USED_BITS)

    def mark(self, row: int) -> None:
        """It was read."""
        self._bits[row % _USED_BITS] = 1

    def take(self, row: int) -> bool:
        """Whether it was read; from now on it was not."""
        used = bool(self._bits[row % _USED_BITS])
        self._bits[row % _USED_BITS] = 0
        return used


class Writing:
    """The connection that writes. From one thread; every method raises `CacheTierError`."""

    def __init__(self, path: Path, most_bytes: int, used: Used) -> None:
        self.path = path
        self.part_bytes = most_bytes // _PARTS
        self._most_pages = (most_bytes - 2 * self.part_bytes) // _PAGE_BYTES
        self._used = used
        self._next_id = 1
        self.entries = 0
        self.bytes = 0
        self.evictions = 0
        with translated():
            self._connection = self._open()

    def close(self) -> None:
        """Give the file back."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def flushes(self) -> list[Flush]:
        """Those remembered."""
        with translated():
            rows = self._connection.execute("SELECT selector, at FROM flushes").fetchall()
        with suppress(msgspec.MsgspecError):
            return [Flush(msgspec.json.decode(selector, type=Selector), at) for selector, at in rows]
        raise UnusableError("disk: a remembered flush is damaged")

    def remember(self, flushes: Iterable[Flush]) -> None:
        """Replace those remembered."""
        rows = [(msgspec.json.encode(flush.selector).decode(), flush.at) for flush in flushes]
        with self._transaction():
            self._connection.execute("DELETE FROM flushes")
            self._connection.executemany("INSERT INTO flushes VALUES (?, ?)", rows)

    def write(self, records: Sequence[Record]) -> None:
        """Keep them, a transaction for each part; one that is larger than a part is left out."""
        chunk: list[tuple[Record, bytes]] = []
        size = 0
        for record in records:
            with translated():
                sealed = seal(record)
            if len(sealed) > self.part_bytes:
                self.evictions += 1
                continue
            if chunk and size + len(sealed) > self.part_bytes:
                self._write(chunk)
                chunk, size = [], 0
            chunk.append((record, sealed))
            size += len(sealed)
        if chunk:
            self._write(chunk)

    def delete(self, found: Found) -> None:
        """This row, if it is still what was found."""
        with self._transaction():
            cursor = self._connection.execute(
                "DELETE FROM records WHERE id = ? AND sealed = ?", (found.id, found.sealed)
            )
            self.entries -= cursor.rowcount

    def count(self, flush: Flush) -> int:
        """How many rows a flush selects."""
        with translated():
            row = self._connection.execute(f"SELECT count(*) FROM records WHERE {_SELECTED}", _name(flush)).fetchone()  # noqa: S608 - a constant
        return int(row[0])

    def purge(self, flush: Flush, after: int, most: int) -> tuple[int, int | None]:
        """Delete some of the rows that a flush selects; returns how many, and after which row to go on, if at all."""
        with self._transaction():
            ids = self._ids(
                f"SELECT id FROM records WHERE id > :after AND {_SELECTED} ORDER BY id LIMIT :most",  # noqa: S608
                {**_name(flush), "after": after, "most": most},
            )
            self._delete(ids)
        return len(ids), ids[-1] if len(ids) == most else None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR))
        self.path.chmod(stat.S_IRUSR | stat.S_IWUSR)  # the log and its index get the file's mode
        connection = connect(self.path)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the file ours, or see that it is."""
        if _ask(connection, "page_count") == 0:
            connection.executescript(
                f"PRAGMA page_size={_PAGE_BYTES}; PRAGMA journal_mode=WAL; BEGIN; {_SCHEMA}"
                f"PRAGMA application_id={_APPLICATION}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT"
            )
        version = (_ask(connection, "application_id"), _ask(connection, "user_version"))
        if version != (_APPLICATION, SCHEMA_VERSION):
            raise UnusableError(f"disk: the file is of version {version[1]}, not {SCHEMA_VERSION}")
        if _ask(connection, "page_count") > self._most_pages:
            raise UnusableError("disk: the file is larger than cache.tiers.disk.most_bytes")
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0", "secure_delete=OFF"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(f"PRAGMA journal_size_limit={self.part_bytes}").fetchall()
        connection.execute(f"PRAGMA max_page_count={self._most_pages}").fetchall()
        (latest,) = connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()
        if not 0 <= latest < _LATEST_ID:
            raise UnusableError("disk: a row's number is damaged")
        self._next_id = latest + 1
        (self.entries,) = connection.execute("SELECT count(*) FROM records").fetchone()
        self._measure(connection)

    def _write(self, chunk: Sequence[tuple[Record, bytes]]) -> None:
        with self._transaction():
            self._delete_expired()
            self._make_room(sum(_pages(len(sealed)) for _, sealed in chunk))
            for record, sealed in chunk:
                self.entries -= self._connection.execute("DELETE FROM records WHERE key = ?", (record.key,)).rowcount
                self._connection.execute(_INSERT, (self._take_id(), *_columns(record), sealed))
                self.entries += 1

    def _delete_expired(self) -> None:
        self._delete(self._ids("SELECT id FROM records WHERE expires_at <= ? LIMIT ?", (time.time(), _EXPIRED)))

    def _make_room(self, pages: int) -> None:
        """Second chance: the oldest rows go, but those that were read meanwhile become the newest, up to one part."""
        spared = 0
        while self._free_pages() < pages:
            rows = self._connection.execute(
                "SELECT id, length(sealed) FROM records ORDER BY id LIMIT ?", (_EVICTED,)
            ).fetchall()
            if not rows:
                raise UnusableError("disk: full without a record in it")
            for row, size in rows:
                if spared + size <= self.part_bytes and self._used.take(row):
                    self._connection.execute("UPDATE records SET id = ? WHERE id = ?", (self._take_id(), row))
                    spared += size
                else:
                    self._delete([row])
                    self.evictions += 1

    def _free_pages(self) -> int:
        connection = self._connection
        return self._most_pages - _ask(connection, "page_count") + _ask(connection, "freelist_count")

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _delete(self, ids: Iterable[int]) -> None:
        for row in ids:
            self.entries -= self._connection.execute("DELETE FROM records WHERE id = ?", (row,)).rowcount

    def _ids(self, query: str, parameters: object) -> list[int]:
        return [row for (row,) in self._connection.execute(query, parameters)]  # type: ignore[arg-type]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, then the log emptied if it is long; a log that cannot be emptied stops the writing."""
        with translated():
            if self._log_bytes() > 2 * self.part_bytes:
                raise CacheTierError("disk: the write-ahead log cannot be emptied")
            entries, evictions, next_id = self.entries, self.evictions, self._next_id
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self.entries, self.evictions, self._next_id = entries, evictions, next_id
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            if self._log_bytes() > self.part_bytes:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._measure(self._connection)

    def _measure(self, connection: sqlite3.Connection) -> None:
        self.bytes = (_ask(connection, "page_count") - _ask(connection, "freelist_count")) * _PAGE_BYTES

    def _log_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return Path(f"{self.path}-wal").stat().st_size
        return 0


class Reading:
    """The connection that reads, which never waits for the other. From one thread; raises `CacheTierError`."""

    def __init__(self, path: Path) -> None:
        with translated():
            self._connection = connect(path)
            self._connection.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """Give the file back."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def find(self, key: bytes) -> Found | None:
        """What there is of a key."""
        with translated():
            row = self._connection.execute("SELECT id, sealed FROM records WHERE key = ?", (key,)).fetchone()
        return None if row is None else Found(*row)

    def scan(self, kind: Kind, before: int | None, most: int) -> list[tuple[bytes, Found]]:
        """Keys and what there is of them, newest first, from before a row on."""
        with translated():
            rows = self._connection.execute(
                "SELECT key, id, sealed FROM records WHERE kind = ? AND id < ? ORDER BY id DESC LIMIT ?",
                (kind.value, _LATEST_ID if before is None else before, most),
            ).fetchall()
        return [(key, Found(row, sealed)) for key, row, sealed in rows]


def connect(path: Path) -> sqlite3.Connection:
    """A connection with small, bounded memory.

    With `unix-excl` the log's index is in this process's memory instead of a mapped file: a write to a mapped page of a
    file system that has become read-only ends the process (SIGBUS). https://www.sqlite.org/vfs.html
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?vfs=unix-excl", uri=True, isolation_level=None, timeout=0.25
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE_BYTES)
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "cache_size=-1024", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def remove(path: Path) -> None:
    """The file, its log and its index."""
    with translated():
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)


def _columns(record: Record) -> tuple[bytes, str, str, str, str, float, float]:
    tags = msgspec.json.encode(record.tags).decode()
    return record.key, record.kind.value, record.tenant, record.model, tags, record.stored_at, record.expires_at


def _name(flush: Flush) -> dict[str, str | float | None]:
    selector = flush.selector
    return {"at": flush.at, "tenant": selector.tenant, "model": selector.model, "tag": selector.tag}


def _pages(size: int) -> int:
    """What a row may take: its own pages, its share of the indexes, and of the splits of their trees."""
    return size // (_PAGE_BYTES - 4) + 4


def _ask(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
