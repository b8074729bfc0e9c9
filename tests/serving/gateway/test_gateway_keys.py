"""The key store: what is kept, what is told, and that a revocation holds at once."""

from __future__ import annotations

import sqlite3
import stat
import threading

import pytest

from freehold.errors import ConfigError, InvalidRequest, NotFound
from freehold.serving.gateway.keys import KeyStore


@pytest.fixture
def store(tmp_path):
    store = KeyStore(tmp_path / "sub" / "keys.db")
    yield store
    store.close()


def test_a_key_is_verified_and_described_but_never_kept(store):
    key = store.add("  laptop ")
    assert key.startswith("fh-")
    assert len(key) == 3 + 43  # 32 bytes as base64
    found = store.verify(key)
    assert (found.name, found.last_characters, found.revoked) == ("laptop", key[-4:], None)
    assert store.list() == [found]
    store.close()
    for file in store.path.parent.iterdir():
        assert key.encode() not in file.read_bytes()


def test_every_key_is_new(store):
    assert len({store.add("same") for _ in range(50)}) == 50


@pytest.mark.parametrize("wrong", ["", "fh-", "x", "fh-" + "a" * 43, "ключ", "fh-" + "a" * 10_000])
def test_other_strings_are_refused(store, wrong):
    store.add("one")
    assert store.verify(wrong) is None


def test_a_key_with_one_character_changed_is_refused(store):
    key = store.add("one")
    for place in range(len(key)):
        changed = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert store.verify(changed) is None


def test_revoking_by_name_or_id_holds_at_once_in_other_processes(store):
    other = KeyStore(store.path)  # a connection of its own, as another process has
    for revoke_by_id in (False, True):
        key = store.add("phone")
        entry = other.verify(key)
        assert entry is not None
        store.revoke(entry.id if revoke_by_id else "phone")
        assert other.verify(key) is None
        assert store.list()[-1].revoked is not None
    other.close()


def test_revoking_a_name_refuses_all_its_keys_and_no_other(store):
    first, second, kept = store.add("a"), store.add("a"), store.add("b")
    store.revoke("a")
    assert store.verify(first) is store.verify(second) is None
    assert store.verify(kept) is not None
    store.revoke("a")  # twice is no error


@pytest.mark.parametrize("unknown", ["nobody", 99, "-1", "9" * 40, "1; DROP TABLE api_keys"])
def test_revoking_what_is_not_there_says_so(store, unknown):
    store.add("one")
    with pytest.raises(NotFound, match="No key"):
        store.revoke(unknown)
    assert len(store.list()) == 1


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\nb", "\x00"])
def test_names_are_bounded(store, name):
    with pytest.raises(InvalidRequest) as caught:
        store.add(name)
    assert caught.value.param == "name"


def test_only_the_owner_can_read_the_files(store):
    store.add("one")
    for file in store.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_keys_survive_reopening_and_are_written_through(store):
    key = store.add("one")
    again = KeyStore(store.path)
    assert again.verify(key) is not None
    again.close()
    db = sqlite3.connect(store.path)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_threads_and_connections_write_side_by_side(store):
    keys: list[str] = []

    def add(own: KeyStore) -> None:
        keys.extend(own.add("thread") for _ in range(10))

    stores = [store, store, KeyStore(store.path), KeyStore(store.path)]
    threads = [threading.Thread(target=add, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 40
    assert all(store.verify(key) for key in keys)
    for own in stores[2:]:
        own.close()


def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "keys.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(ConfigError, match=r"keys\.db cannot be used"):
        KeyStore(path)
    with pytest.raises(ConfigError, match="cannot be used"):
        KeyStore(tmp_path)  # a directory
