"""Model directories as people have them: whole, sharded, linked from a cache, and each way of
being broken, which gets one clear sentence of the right class."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from freehold.errors import CheckpointError
from freehold.model.checkpoint import INDEX, SINGLE, Checkpoint

TENSORS = {f"t{i}": np.full((2, 3), i, np.float32) for i in range(4)}
SHARDS = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]


@pytest.fixture
def single(tmp_path: Path) -> Path:
    directory = tmp_path / "my-model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_file(TENSORS, directory / SINGLE)
    return directory


@pytest.fixture
def sharded(single: Path) -> Path:
    (single / SINGLE).unlink()
    weight_map = {}
    for i, shard in enumerate(SHARDS):
        mine = {name: tensor for name, tensor in TENSORS.items() if int(name[1]) % 2 == i}
        save_file(mine, single / shard)
        weight_map |= dict.fromkeys(mine, shard)
    write_index(single, weight_map)
    return single


def write_index(directory: Path, weight_map: object) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def index_of(directory: Path) -> dict[str, str]:
    return json.loads((directory / INDEX).read_text())["weight_map"]


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(directory)
    message = caught.value.message
    assert type(caught.value) is CheckpointError
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < 400
    return message


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_tensors_of_all_shards_read_as_written(kind: str, request: pytest.FixtureRequest) -> None:
    with Checkpoint.open(request.getfixturevalue(kind)) as checkpoint:
        assert checkpoint.names() == tuple(sorted(TENSORS))
        assert checkpoint.config == {"model_type": "llama"}
        assert checkpoint.generation_config == {}
        for name, expected in TENSORS.items():
            info = checkpoint.info(name)
            assert (info.dtype, info.shape, info.num_bytes) == ("F32", (2, 3), 24)
            assert np.array_equal(checkpoint.tensor(name), expected)
            checkpoint.release(name)
            assert checkpoint.has(name)
        assert not checkpoint.has("other")
        for read in (checkpoint.info, checkpoint.tensor, checkpoint.release):
            with pytest.raises(CheckpointError, match="no tensor other"):
                read("other")


def test_index_decides_which_tensors_there_are(sharded: Path) -> None:
    weight_map = index_of(sharded)
    del weight_map["t3"]
    write_index(sharded, weight_map)
    assert Checkpoint.open(sharded).names() == ("t0", "t1", "t2")


def test_snapshot_of_links_into_a_cache_reads(sharded: Path, tmp_path: Path) -> None:
    """Hugging Face's cache: snapshots/<commit>/<file> -> ../../blobs/<digest>."""
    (blobs := tmp_path / "blobs").mkdir()
    (snapshot := tmp_path / "snapshots" / "abc").mkdir(parents=True)
    for i, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    checkpoint = Checkpoint.open(snapshot)
    assert np.array_equal(checkpoint.tensor("t3"), TENSORS["t3"])
    (blobs / "0").unlink()
    assert "config.json is missing" in refusal(snapshot)


def test_digest_is_that_of_the_content(single: Path, tmp_path: Path) -> None:
    digest = Checkpoint.open(single).digest()
    assert len(digest) == 64
    assert Checkpoint.open(shutil.copytree(single, tmp_path / "copy")).digest() == digest
    (single / "README.md").write_text("no part of the model")
    assert Checkpoint.open(single).digest() == digest
    save_file(TENSORS | {"t0": TENSORS["t1"]}, single / SINGLE)  # headers and sizes as before
    other = Checkpoint.open(single).digest()
    assert other != digest
    (single / "config.json").write_text('{"model_type": "qwen2"}')
    assert Checkpoint.open(single).digest() not in (digest, other)


def test_no_directory(tmp_path: Path) -> None:
    assert "There is no model directory" in refusal(tmp_path / "nowhere")
    assert "There is no model directory" in refusal(tmp_path / "x" / "nowhere")


def test_a_file_instead_of_a_directory(single: Path) -> None:
    assert "is a file; name the directory" in refusal(single / SINGLE)


def test_path_that_no_system_takes() -> None:
    assert "cannot be read" in refusal(Path("a\0b"))


def test_empty_directory(tmp_path: Path) -> None:
    assert "is empty" in refusal(tmp_path)


def test_no_configuration(single: Path) -> None:
    (single / "config.json").unlink()
    assert refusal(single) == "config.json is missing."


def test_no_weights(single: Path) -> None:
    (single / SINGLE).unlink()
    assert "it has no model.safetensors or" in refusal(single)
    (single / "config.json").unlink()
    (single / "notes.txt").write_text("x")
    assert "no config.json and no model.safetensors" in refusal(single)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "config.json is not valid JSON: "),
        (b"[1]", "config.json must hold a JSON object, not an array."),
        (b"7", "config.json must hold a JSON object, not a number."),
        (b"\xff\xfe", "config.json is not UTF-8 text: bad byte at offset 0."),
        (b"[" * 200_000, "config.json is not valid JSON: too deep"),
        (b'{"a": 1%s}' % (b"0" * 5000), "config.json is not valid JSON: too deep, or too long"),
        (b" " * ((16 << 20) + 1), "config.json is 16,777,217 bytes; at most 16,777,216 are read."),
    ],
)
def test_configuration_that_is_no_object(single: Path, content: bytes, expected: str) -> None:
    (single / "config.json").write_bytes(content)
    assert refusal(single).startswith(expected)


@pytest.mark.parametrize("file", ["config.json", SINGLE])
def test_pipes_and_directories_are_refused_without_hanging(single: Path, file: str) -> None:
    (single / file).unlink()
    os.mkfifo(single / file)
    assert refusal(single) == f"{file} is not a regular file."
    (single / file).unlink()
    (single / file).mkdir()
    assert refusal(single).startswith(file)


class Bomb:
    """Opening this pickle would leave a trace."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (os.environ["FREEHOLD_BOMB"], "w"))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.00.pth", "model.PT", "weights.pkl", "last.ckpt"]
)
def test_pickle_alone_is_named_and_never_opened(
    single: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (single / SINGLE).unlink()
    monkeypatch.setenv("FREEHOLD_BOMB", str(single / "trace"))
    (single / name).write_bytes(pickle.dumps(Bomb()))
    (single / name).chmod(0)
    message = refusal(single)
    assert name in message
    assert "convert it to safetensors" in message
    assert not (single / "trace").exists()


def test_pickle_beside_safetensors_is_ignored(single: Path) -> None:
    (single / "training_args.bin").write_bytes(b"never read")
    assert Checkpoint.open(single).names() == tuple(sorted(TENSORS))


def test_gguf_alone_is_named(single: Path) -> None:
    (single / SINGLE).rename(single / "model-q4.gguf")
    assert "GGUF, model-q4.gguf" in refusal(single)


def test_shards_without_an_index(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert f"has {SHARDS[0]} but neither {SINGLE} nor {INDEX}" in refusal(sharded)


def test_missing_shard_is_named_and_counted(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    assert f"1 of 2 shards named by {INDEX} are missing, the first is {SHARDS[1]}" in refusal(
        sharded
    )
    (sharded / SHARDS[0]).unlink()
    assert "2 of 2 shards" in refusal(sharded)


def test_tensor_that_its_shard_lacks_is_named(sharded: Path) -> None:
    write_index(sharded, index_of(sharded) | {"lost": SHARDS[1]})
    assert f"tensor lost is in {SHARDS[1]}, which does not have it" in refusal(sharded)


def test_truncated_shard_is_named_with_both_sizes(sharded: Path) -> None:
    content = (sharded / SHARDS[1]).read_bytes()
    (sharded / SHARDS[1]).write_bytes(content[:-10])
    message = refusal(sharded)
    assert message.startswith(f"{SHARDS[1]} is truncated")
    assert f"{len(content)} bytes" in message
    assert f"has {len(content) - 10}" in message


def test_shard_that_is_no_safetensors_is_named(sharded: Path) -> None:
    (sharded / SHARDS[0]).write_text("<!DOCTYPE html><html>not found</html>")
    assert refusal(sharded).startswith(f"{SHARDS[0]} is not a safetensors file")


@pytest.mark.parametrize(
    "file",
    [
        "../my-model/model-00001-of-00002.safetensors",
        "/etc/passwd",
        "/dev/zero.safetensors",
        "sub/model.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "..",
        "",
        "config.json",
        "pytorch_model.bin",
        "a\0.safetensors",
        "x" * 300 + ".safetensors",
        7,
        None,
        ["x.safetensors"],
    ],
)
def test_index_names_only_plain_safetensors_files(sharded: Path, file: object) -> None:
    write_index(sharded, index_of(sharded) | {"t0": file})
    assert f"{INDEX} puts tensor t0 into" in refusal(sharded)


@pytest.mark.parametrize("weight_map", [None, {}, [], "x"])
def test_index_without_a_map(sharded: Path, weight_map: object) -> None:
    write_index(sharded, weight_map)
    assert refusal(sharded) == f"{INDEX} has no weight_map of tensor names to files."


def test_errors_about_files_do_not_show_where_they_are(sharded: Path) -> None:
    (sharded / SHARDS[0]).write_bytes(b"")
    assert str(sharded.parent) not in refusal(sharded)
    (sharded / SHARDS[0]).unlink()
    (sharded / SHARDS[0]).symlink_to("/nonexistent/secret/place")
    assert "secret" not in refusal(sharded)
