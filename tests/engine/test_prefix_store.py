"""Prefixes used twice outlive a restart, change no token, and whatever is wrong with them is a
miss."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
from driving import a_request
from tiny import write_checkpoint

from freehold.engine import EngineConfig
from freehold.engine.loading import load_engine
from freehold.engine.prefix_store import PrefixStore
from freehold.ops.native import NativeOps
from freehold.ops.reference import ReferenceOps
from freehold.types import CacheFormat

PROMPT = [3 + i % 50 for i in range(43)]  # ten full blocks of four, and a rest
OPS = {"reference": ReferenceOps(), "native": NativeOps(num_threads=1)}


@pytest.fixture(scope="module", params=["qwen2", "deepseek_v3"])
def directory(request, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / request.param, request.param, seed=3)


class Life:
    """An engine from its start to its end."""

    def __init__(self, directory, home, ops="native", store_bytes=1 << 30, **config):
        config = {"block_size": 4, "kv_cache_bytes": 1 << 20, **config}
        settings = EngineConfig(prefix_store=home, prefix_store_bytes=store_bytes, **config)
        self.engine = load_engine(directory, ops=OPS[ops], config=settings).engine
        self.count = 0

    def ask(self, prompt=PROMPT):
        """(tokens and logprobs, how much of the prompt was not computed)"""
        self.count += 1
        self.engine.add(
            a_request(self.count, prompt, max_tokens=5, num_logprobs=2, ignore_eos=True)
        )
        events = []
        while self.engine.has_work:
            events += self.engine.step()
            self.engine.scheduler.check()
        self.store.flush()
        return [(e.token_id, e.logprob, e.top_logprobs) for e in events], events[
            0
        ].num_cached_tokens

    @property
    def store(self):
        return self.engine.block_manager._store


def files(home):
    return sorted(home.glob("*/*"))


@pytest.mark.parametrize("ops", ["native", "reference"])
def test_a_prefix_used_twice_is_there_after_a_restart_and_changes_no_bit(directory, tmp_path, ops):
    life = Life(directory, tmp_path, ops)
    first, num_cached = life.ask()
    assert num_cached == 0
    assert files(tmp_path) == [], "used once: it may never come again"
    assert life.ask() == (first, 40)
    assert len(files(tmp_path)) == 10
    assert Life(directory, tmp_path, ops).ask() == (first, 40)


@pytest.mark.parametrize("ops", ["native", "reference"])
def test_caches_in_int8_are_kept_with_their_scales(directory, tmp_path, ops):
    life = Life(directory, tmp_path, ops, kv_cache_format=CacheFormat.INT8)
    answer, _ = life.ask()
    life.ask()
    again = Life(directory, tmp_path, ops, kv_cache_format=CacheFormat.INT8)
    assert again.ask() == (answer, 40)
    assert Life(directory, tmp_path, ops).ask()[1] == 0, "in BF16 they mean something else"


def test_a_restored_prefix_is_shared_in_memory_from_then_on(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask()
    life.ask()
    again = Life(directory, tmp_path)
    answer, _ = again.ask()
    for path in files(tmp_path):
        path.unlink()
    assert again.ask() == (answer, 40)


def test_only_the_common_part_of_two_prompts_is_kept(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask([*PROMPT[:21], 9, 9, 9, 9, 9, 9])
    life.ask()
    assert len(files(tmp_path)) == 5
    assert Life(directory, tmp_path).ask()[1] == 20


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "gone"])
def test_a_damaged_block_ends_the_prefix_there(directory, tmp_path, damage):
    life = Life(directory, tmp_path)
    whole, _ = life.ask()
    life.ask()
    third = life.store._path(life.engine.block_manager._hash_of[_block_of(life.engine, 2)].hex())
    content = bytearray(third.read_bytes())
    if damage == "flipped":
        content[100] ^= 1
        third.write_bytes(content)
    elif damage == "gone":
        third.unlink()
    else:
        third.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    assert Life(directory, tmp_path).ask() == (whole, 8)
    assert not third.exists()


def _block_of(engine, index):
    """The block that keeps the prompt's block of that index."""
    probe = a_request("probe", PROMPT)
    manager = engine.block_manager
    return manager._match_prefix(probe, manager._num_reusable_blocks(probe))[index]


def test_other_weights_kernels_or_block_sizes_find_nothing(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask()
    life.ask()
    other = write_checkpoint(tmp_path / "other", "qwen2", seed=4)
    assert Life(other, tmp_path / "store").ask()[1] == 0
    assert Life(other, tmp_path).ask()[1] == 0
    assert Life(directory, tmp_path, ops="reference").ask()[1] == 0
    assert Life(directory, tmp_path, block_size=8).ask()[1] == 0


def test_the_bound_holds_and_the_least_recently_used_goes_first(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask()
    life.ask()
    size = sum(path.stat().st_size for path in files(tmp_path))
    for path in files(tmp_path):
        os.utime(path, (1, 1))  # long ago
    other = [60 - token for token in PROMPT]
    bounded = Life(directory, tmp_path, store_bytes=size)
    bounded.ask(other)
    bounded.ask(other)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= size
    assert Life(directory, tmp_path).ask(other)[1] == 40


def test_the_files_are_for_their_owner_alone(directory, tmp_path):
    life = Life(directory, tmp_path / "home")
    life.ask()
    life.ask()
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path / "home")} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "home").iterdir()} == {0o700}


def test_a_directory_that_cannot_be_made_costs_time_and_no_answer(directory, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    life = Life(directory, tmp_path / "file")
    assert life.store is None
    assert "cannot be kept" in caplog.text


def test_a_full_disk_loses_nothing_but_the_prefix(directory, tmp_path, monkeypatch, caplog):
    life = Life(directory, tmp_path)
    answer, _ = life.ask()
    monkeypatch.setattr(PrefixStore, "_path", lambda self, name: tmp_path / "gone" / name)
    assert life.ask() == (answer, 40)
    assert "not kept" in caplog.text


def test_a_model_that_is_let_go_takes_its_cache_along(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask()
    cache = weakref.ref(life.store._memory[0])
    del life
    gc.collect()
    assert cache() is None


def test_prompt_logprobs_compute_every_token(directory, tmp_path):
    life = Life(directory, tmp_path)
    life.ask()
    life.ask()
    again = Life(directory, tmp_path)
    again.engine.add(a_request("r", PROMPT, max_tokens=1, prompt_logprobs=0))
    events = []
    while again.engine.has_work:
        events += again.engine.step()
    assert events[0].num_cached_tokens == 0
    assert len(events[0].prompt_logprobs) == len(PROMPT)
