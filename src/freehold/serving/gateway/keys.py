"""API keys in one SQLite file: made once, shown once, kept only as a hash.

Plain `sqlite3`, not SQLAlchemy: one table and four statements, read on every request. A key is 256
random bits, so a single SHA-256 is enough: there is no dictionary to try, and a slow password hash
would only slow every request. Knows no HTTP; read `auth.py` next.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from freehold.errors import ConfigError, InvalidRequest, NotFound

PREFIX = "fh-"
NUM_RANDOM_BYTES = 32
MAX_KEY_CHARS = 128  # longer ones are refused unread
MAX_NAME_CHARS = 100
NUM_LAST_CHARACTERS = 4

_SCHEMA = """
CREATE TABLE IF NOT EXISTS api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    last_characters TEXT NOT NULL,
    created TEXT NOT NULL,
    revoked TEXT
)
"""
_COLUMNS = "id, name, last_characters, created, revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What may be told of a key; never the key."""

    id: int
    name: str
    last_characters: str
    created: datetime  # UTC
    revoked: datetime | None


class KeyStore:
    """Opens or creates the file, readable by its owner only. Safe across threads and processes.

    Every `verify` reads the database (an index look-up in the mapped file, about 10 µs), so that a
    key revoked by another process is refused from its very next request.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises ConfigError when the file cannot be opened or is not a key database."""
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Made before SQLite does, so that it is never readable by others, not for a moment;
            # its -wal and -shm files take over the mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with suppress(PermissionError):  # another user's file that we may only use
                self.path.chmod(0o600)
            self._db = sqlite3.connect(
                self.path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"The key database {self.path} cannot be used ({_reason(error)}); check its "
                "directory's permissions or name another file."
            ) from error

    def close(self) -> None:
        self._db.close()

    def add(self, name: str) -> str:
        """Make a key and return it: the only time it can be seen. Names may repeat."""
        name = name.strip()
        if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"A key's name has from 1 to {MAX_NAME_CHARS} printable characters.", param="name"
            )
        key = PREFIX + secrets.token_urlsafe(NUM_RANDOM_BYTES)
        with self._lock:
            self._db.execute(
                "INSERT INTO api_keys (name, hash, last_characters, created) VALUES (?, ?, ?, ?)",
                (name, _hash(key), key[-NUM_LAST_CHARACTERS:], _now()),
            )
        return key

    def list(self) -> list[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM api_keys ORDER BY id").fetchall()
        return [_api_key(row) for row in rows]

    def revoke(self, name_or_id: str | int) -> None:
        """Refuse, from now on, every active key of that name, else the key of that id.

        Revoking twice is no error. Raises NotFound when there is no such key.
        """
        given = str(name_or_id)
        # 15 digits fit SQLite's integers; no house makes more keys.
        key_id = int(given) if given.isascii() and given.isdigit() and len(given) <= 15 else -1
        update = "UPDATE api_keys SET revoked = ? WHERE revoked IS NULL AND "
        with self._lock:
            if self._db.execute(update + "name = ?", (_now(), given)).rowcount:
                return
            if self._db.execute(update + "id = ?", (_now(), key_id)).rowcount:
                return
            known = self._db.execute(
                "SELECT 1 FROM api_keys WHERE name = ? OR id = ?", (given, key_id)
            ).fetchone()
        if known is None:
            raise NotFound(f"No key is named or numbered '{given}'; list the keys to see all.")

    def verify(self, key: str) -> ApiKey | None:
        """The key's entry, or None for one that is unknown, revoked or malformed.

        The look-up is by hash: what its timing could tell is a prefix of a SHA-256 that the caller
        cannot steer towards a key; the final comparison takes the same time wherever it differs.
        """
        if len(key) > MAX_KEY_CHARS or not key.isascii():
            return None
        digest = _hash(key)
        with self._lock:
            row = self._db.execute(
                f"SELECT {_COLUMNS}, hash FROM api_keys WHERE hash = ?", (digest,)
            ).fetchone()
        if row is None or not hmac.compare_digest(row[-1], digest):
            return None
        found = _api_key(row[:-1])
        return found if found.revoked is None else None

    def has_active(self) -> bool:
        with self._lock:
            return bool(
                self._db.execute("SELECT 1 FROM api_keys WHERE revoked IS NULL LIMIT 1").fetchone()
            )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _api_key(row: tuple[int, str, str, str, str | None]) -> ApiKey:
    key_id, name, last_characters, created, revoked = row
    return ApiKey(
        key_id,
        name,
        last_characters,
        datetime.fromisoformat(created),
        None if revoked is None else datetime.fromisoformat(revoked),
    )


def _reason(error: Exception) -> str:
    return error.strerror or "unknown" if isinstance(error, OSError) else str(error)
