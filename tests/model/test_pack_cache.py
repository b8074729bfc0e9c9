"""Packed weights come back from disk bit for bit, and whatever is wrong there is made anew."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil

import numpy as np
import pytest
from tiny import write_checkpoint

from freehold.model import pack_cache
from freehold.model.architectures import build_model
from freehold.model.checkpoint import Checkpoint
from freehold.model.pack_cache import (
    DATA,
    FOLDER,
    INDEX,
    KeptPacks,
    NewPacks,
    NoPacks,
    build_with_packs,
    open_packs,
)
from freehold.ops.native import NativeOps
from freehold.ops.reference import ReferenceOps
from freehold.types import WeightFormat

OPS = NativeOps(num_threads=1)
INT4 = WeightFormat.INT4


@pytest.fixture(autouse=True)
def keep_small_ones_too(monkeypatch):
    monkeypatch.setattr(pack_cache, "MIN_CHECKPOINT_BYTES", 0)


@pytest.fixture(params=["qwen2", "deepseek_v3"])
def directory(request, tmp_path):
    return write_checkpoint(tmp_path / request.param, request.param, seed=3)


class CountingOps(NativeOps):
    """Real ones that count what they pack."""

    num_packed = 0

    def weight(self, *args, **kwargs):
        self.num_packed += 1
        return super().weight(*args, **kwargs)

    def per_head_weight(self, *args, **kwargs):
        self.num_packed += 1
        return super().per_head_weight(*args, **kwargs)


def load(directory, quantize=INT4):
    """All logits of a short text, and how many matrices were packed for them."""
    ops = CountingOps(num_threads=1)
    checkpoint = Checkpoint.open(directory)
    with open_packs(directory, checkpoint.digest(), quantize.value, ops) as packs:
        model = build_model(checkpoint.config, checkpoint, ops=ops, quantize=quantize, packs=packs)
    hidden = np.random.default_rng(0).standard_normal((3, model.config.hidden_size), np.float32)
    layers = [ops.linear(hidden, model.head.weight)]
    mlp = model.layers[-1].mlp
    layers.append(mlp(hidden))
    return np.concatenate([each.ravel() for each in layers]), ops.num_packed


def kept(directory):
    return sorted((directory / FOLDER).iterdir())


@pytest.mark.parametrize("quantize", [INT4, WeightFormat.INT8, WeightFormat.BF16])
def test_the_second_start_packs_nothing_and_computes_the_same_bits(directory, quantize):
    first, num_packed = load(directory, quantize)
    again, num_packed_again = load(directory, quantize)
    assert num_packed > 0
    assert num_packed_again == 0
    assert np.array_equal(first, again)


def test_a_first_start_ends_on_the_kept_bytes_as_the_next_begins(directory):
    digest = Checkpoint.open(directory).digest()
    ops, used = CountingOps(num_threads=1), []

    def build(packs):
        used.append(type(packs))
        return packs.take("w", lambda: ops.weight(np.ones((32, 64), np.float32), INT4))

    first = build_with_packs(build, directory, digest, "int4", ops)
    second = build_with_packs(build, directory, digest, "int4", ops)
    assert used == [NewPacks, KeptPacks, KeptPacks]
    assert ops.num_packed == 1
    assert np.array_equal(first.bytes, second.bytes)


def test_formats_are_kept_side_by_side(directory):
    load(directory, INT4)
    load(directory, WeightFormat.INT8)
    assert len(kept(directory)) == 2
    assert load(directory, INT4)[1] == load(directory, WeightFormat.INT8)[1] == 0


def test_a_changed_checkpoint_is_packed_anew_and_the_outdated_goes(directory):
    load(directory)
    (before,) = kept(directory)
    shard = next(directory.glob("*.safetensors"))
    os.utime(shard, (1, 1))
    assert load(directory)[1] > 0
    (after,) = kept(directory)
    assert before != after


@pytest.mark.parametrize("damage", ["truncated", "grown", "no index", "index of another kind"])
def test_what_is_not_whole_is_made_anew(directory, damage):
    first, _ = load(directory)
    (pack,) = kept(directory)
    data, index = pack / DATA, pack / INDEX
    if damage == "truncated":
        os.truncate(data, data.stat().st_size - 1)
    elif damage == "grown":
        data.write_bytes(data.read_bytes() + b"\0")
    elif damage == "no index":
        index.unlink()
    else:
        index.write_text('{"num_bytes": "many", "weights": 3}')
    again, num_packed = load(directory)
    assert num_packed > 0
    assert np.array_equal(first, again)


def test_an_index_that_lies_about_one_weight_costs_only_that_one(directory, caplog):
    first, _ = load(directory)
    (pack,) = kept(directory)
    index = json.loads((pack / INDEX).read_text())
    names = list(index["weights"])
    index["weights"][names[0]][2][2] += 16  # its form: more outputs than there are bytes
    index["weights"][names[1]][0] += 1  # its offset: not on a border
    del index["weights"][names[2]]
    (pack / INDEX).write_text(json.dumps(index))
    again, num_packed = load(directory)
    assert num_packed == 3
    assert np.array_equal(first, again)
    assert names[0] in caplog.text


def test_a_failed_load_leaves_nothing(directory):
    packs = open_packs(directory, Checkpoint.open(directory).digest(), "int4", OPS)

    def pack_two():
        with packs:
            packs.take("one", lambda: OPS.weight(np.ones((32, 64), np.float32), INT4))
            packs.take("two", lambda: OPS.weight(np.ones((32, 65537), np.float32), INT4))

    with pytest.raises(ValueError, match="65,536"):
        pack_two()
    assert kept(directory) == []


def test_a_full_disk_costs_time_and_no_answer(directory, caplog):
    whole, _ = load(directory, WeightFormat.BF16)
    shutil.rmtree(directory / FOLDER)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        found, _ = load(directory, WeightFormat.BF16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert np.array_equal(found, whole)
    assert "not kept" in caplog.text
    assert kept(directory) == []


def test_a_directory_that_takes_no_files_costs_time_and_no_answer(directory, caplog):
    (directory / FOLDER).write_text("a file in its place")
    assert load(directory)[1] > 0
    assert "cannot be kept" in caplog.text


def test_what_a_killed_start_left_goes_but_not_what_is_being_written(directory):
    folder = directory / FOLDER
    abandoned, busy = folder / "partial-a", folder / "partial-b"
    for partial in (abandoned, busy):
        partial.mkdir(parents=True)
        (partial / DATA).write_bytes(b"half")
    with (busy / DATA).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load(directory)
    assert not abandoned.exists()
    assert busy.exists()


def test_two_first_starts_at_once_leave_one_pack(directory):
    checkpoint = Checkpoint.open(directory)

    def weight():
        return OPS.weight(np.ones((32, 64), np.float32), INT4)

    with (
        open_packs(directory, checkpoint.digest(), "int4", OPS) as one,
        open_packs(directory, checkpoint.digest(), "int4", OPS) as two,
    ):
        mine, theirs = one.take("w", weight), two.take("w", weight)
    assert len(kept(directory)) == 1
    assert np.array_equal(mine.bytes, theirs.bytes)
    assert isinstance(open_packs(directory, checkpoint.digest(), "int4", OPS), KeptPacks)


def test_nothing_is_kept_of_what_is_not_packed_or_small(directory, monkeypatch):
    digest = Checkpoint.open(directory).digest()
    assert type(open_packs(directory, digest, "float32", ReferenceOps())) is NoPacks
    monkeypatch.setattr(pack_cache, "MIN_CHECKPOINT_BYTES", 1 << 40)
    assert type(open_packs(directory, digest, "int4", OPS)) is NoPacks
    assert not (directory / FOLDER).exists()
