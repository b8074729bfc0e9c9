"""Our reader against the `safetensors` library: what it refuses we refuse, and what both take
reads equally. The known differences, all on the strict side, are written out below."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from freehold.errors import CheckpointError
from freehold.model.safetensors_file import BITS, SafetensorsFile


def encode(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def theirs(content: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    try:
        tensors = deserialize(content)
    except SafetensorError:
        return None
    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in tensors}


def ours(path: Path, content: bytes) -> dict[str, tuple[str, list[int], bytes]] | str:
    """The same of our reader, or its message: any other exception fails the test."""
    path.write_bytes(content)
    try:
        file = SafetensorsFile.open(path)
    except CheckpointError as error:
        return one_clear_sentence(error.message, path)
    result = {}
    for name, info in file.tensors.items():
        data = content[info.offset : info.offset + info.num_bytes]
        if info.dtype[:2] not in ("F4", "F6"):
            assert file.tensor(name).tobytes() == data
        result[name] = (info.dtype, list(info.shape), data)
    return result


def one_clear_sentence(message: str, path: Path) -> str:
    assert path.name in message
    assert str(path.parent) not in message
    assert message.isprintable()
    assert len(message) < 1000
    return message


STRICTER = {
    "a name twice": b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2),
    "a metadata key twice": b'{"__metadata__":{"k":"1","k":"2"}}',
    "an unknown key twice": b'{"a":%s,"x":1,"x":1}}' % json.dumps(entry()).encode()[:-1],
    "an entry as an array": {"a": ["F32", [1], [0, 4]]},
    "a dtype as an object": {"a": entry({"F32": None})},
    "an impossible empty shape": {"a": entry(shape=(0, 1 << 63), offsets=(0, 0))},
    "an overflowing empty shape": {"a": entry(shape=(0, 1 << 62, 1 << 62), offsets=(0, 0))},
    "too many dimensions": {"a": entry(shape=[1] * 33)},
}


@pytest.mark.parametrize("case", STRICTER)
def test_stricter_than_the_library(tmp_path: Path, case: str) -> None:
    data = b"1234" if b"[0, 4]" in encode(STRICTER[case]) else b""
    content = encode(STRICTER[case], data)
    assert theirs(content) is not None
    assert isinstance(ours(tmp_path / "x.safetensors", content), str)


one = json.dumps(entry()).encode()[:-1]
AGREED: dict[str, bytes] = {
    "empty": encode({}),
    "no JSON": encode(b""),
    "array": encode(b"[]"),
    "null entry": encode({"a": None}),
    "NUL after the JSON": encode(b'{"a":%s}}\0' % one, b"1234"),
    "spaces around": encode(b' \n\t{"a":%s}} \r\n' % one, b"1234"),
    "not UTF-8": encode(b'{"\xff":%s}}' % one, b"1234"),
    "byte order mark": encode(b'\xef\xbb\xbf{"a":%s}}' % one, b"1234"),
    "lone surrogate": encode(b'{"\\ud800":%s}}' % one, b"1234"),
    "surrogate pair": encode(b'{"\\ud83e\\udd8a":%s}}' % one, b"1234"),
    "lone surrogate in what is ignored": encode(b'{"a":%s,"x":["\\udc00"]}}' % one, b"1234"),
    "control character": encode(b'{"a\x01":%s}}' % one, b"1234"),
    "NaN": encode(b'{"a":%s,"x":NaN}}' % one, b"1234"),
    "1e999": encode(b'{"a":%s,"x":1e999}}' % one, b"1234"),
    "long integer": encode(b'{"a":%s,"x":1%s}}' % (one, b"0" * 40), b"1234"),
    "very long integer": encode(b'{"a":%s,"x":1%s}}' % (one, b"0" * 5000), b"1234"),
    "-0": encode(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-0,4]}}', b"1234"),
    "1.0": encode(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', b"1234"),
    "true": encode({"a": entry(shape=[True])}, b"1234"),
    "negative": encode({"a": entry(shape=[-1])}, b"1234"),
    "past 64 bits": encode({"a": entry(shape=[1 << 64, 0], offsets=(0, 0))}),
    "overflow": encode({"a": entry(shape=[1 << 63, 1 << 63, 0], offsets=(0, 0))}),
    "wraps to 4": encode({"a": entry("U8", [(1 << 62) + 1, 4])}, b"1234"),
    "three offsets": encode({"a": entry(offsets=(0, 4, 4))}, b"1234"),
    "offsets backwards": encode({"a": entry(offsets=(4, 0))}, b"1234"),
    "hole": encode({"a": entry(), "b": entry(offsets=(8, 12))}, b"1" * 12),
    "overlap": encode({"a": entry(), "b": entry(offsets=(2, 6))}, b"1" * 6),
    "alias": encode({"a": entry(), "b": entry()}, b"1234"),
    "does not start at 0": encode({"a": entry(offsets=(4, 8))}, b"1" * 8),
    "data too short": encode({"a": entry()}, b"123"),
    "data too long": encode({"a": entry()}, b"12345"),
    "empty tensors": encode(
        {"a": entry(), "b": entry("U8", [0], (4, 4)), "c": entry("U8", [0], (0, 0))}, b"1234"
    ),
    "empty tensor in a tensor": encode(
        {"a": entry(), "b": entry(shape=[0], offsets=(2, 2))}, b"1234"
    ),
    "scalar": encode({"a": entry(shape=[])}, b"1234"),
    "unknown field": encode({"a": entry(more=[1, {"x": None}])}, b"1234"),
    "missing field": encode({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
    "unknown dtype": encode({"a": entry("Q4_0")}, b"1234"),
    "lower-case dtype": encode({"a": entry("f32")}, b"1234"),
    "metadata": encode({"__metadata__": {"k": "v"}, "a": entry()}, b"1234"),
    "metadata null": encode({"__metadata__": None}),
    "metadata with a number": encode({"__metadata__": {"k": 1}}),
    "metadata a string": encode({"__metadata__": "x"}),
    "name empty": encode({"": entry()}, b"1234"),
    "name NUL": encode({"\0": entry()}, b"1234"),
    "half a byte": encode({"a": entry("F4", [1], (0, 1))}, b"1"),
    "two halves": encode({"a": entry("F4", [2], (0, 1))}, b"1"),
    "nothing": b"",
    "7 bytes": b"1234567",
    "header past the end": encode({}, length=3),
    "header of 100 MB": encode({}, length=100_000_001),
    "header of 2^63": encode({}, length=1 << 63),
    **{
        f"{depth} deep": encode(b'{"a":%s,"x":%s%s}}' % (one, b"[" * depth, b"]" * depth), b"1234")
        for depth in (125, 126, 127, 128, 500, 100_000)
    },
    **{d: encode({"a": entry(d, [8], (0, bits))}, b"1" * bits) for d, bits in BITS.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", AGREED)
def test_refuses_and_reads_what_the_library_does(tmp_path: Path, case: str) -> None:
    expected, found = theirs(AGREED[case]), ours(tmp_path / "x.safetensors", AGREED[case])
    assert found == expected if expected is not None else isinstance(found, str)


names = st.one_of(st.sampled_from(["a", "b", "__metadata__", ""]), st.text(max_size=3))
numbers = st.one_of(
    st.integers(-1, 8), st.sampled_from([1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64, 1.0, True])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=3))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
rough_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(sorted(BITS)), anything),
        "shape": st.one_of(st.lists(numbers, max_size=4), anything),
        "data_offsets": st.one_of(st.lists(numbers, min_size=2, max_size=2), anything),
        "more": anything,
    },
)


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3)))
    at = 0
    for name in draw(st.lists(st.text(max_size=3).filter(lambda n: n != "__metadata__"),
                              max_size=4, unique=True)):  # fmt: skip
        dtype = draw(st.sampled_from([d for d in BITS if BITS[d] >= 8]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(shape, dtype=int)) * BITS[dtype] // 8
        header[name] = entry(dtype, shape, (at, at + size))
        at += size
    return dict(draw(st.permutations(list(header.items())))), draw(
        st.binary(min_size=at, max_size=at)
    )


def _is_known_difference(content: bytes, message: str) -> bool:
    """One of STRICTER that random headers run into."""
    return any(
        part in message
        for part in ("is an array, not an object", "one no array can have", "given twice")
    ) or ("the dtype of" in message and "{" in message)


def check_against_library(path: Path, content: bytes) -> None:
    expected, found = theirs(content), ours(path, content)
    if expected is None:
        assert isinstance(found, str)
    elif isinstance(found, str):
        assert _is_known_difference(content, found), found
    else:
        assert found == expected


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.safetensors"


@settings(max_examples=400, deadline=None)
@given(header=st.dictionaries(names, rough_entries | anything, max_size=3), size=st.integers(0, 40))
def test_rough_headers(path: Path, header: dict[str, Any], size: int) -> None:
    check_against_library(path, encode(header, bytes(size)))


@settings(max_examples=300, deadline=None)
@given(file=well_formed())
def test_well_formed_files_read_equally(path: Path, file: tuple[dict[str, Any], bytes]) -> None:
    content = encode(*file)
    expected = theirs(content)
    assert expected is not None
    assert ours(path, content) == expected


@settings(max_examples=600, deadline=None)
@given(
    file=well_formed(),
    position=st.integers(0, 10_000),
    cut=st.integers(0, 3),
    piece=st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b"\\u", b"\\ud800"]),
    ),
)
def test_mutated_files(
    path: Path, file: tuple[dict[str, Any], bytes], position: int, cut: int, piece: bytes
) -> None:
    """A few bytes of the header replaced, its length kept right or not."""
    text = json.dumps(file[0]).encode()
    at = position % (len(text) + 1)
    mutated = text[:at] + piece + text[at + cut :]
    check_against_library(path, encode(mutated, file[1]))
    check_against_library(path, encode(mutated, file[1], length=len(text)))


@settings(max_examples=100, deadline=None)
@given(file=well_formed(), keep=st.integers(0, 10_000))
def test_truncated_files_are_refused(
    path: Path, file: tuple[dict[str, Any], bytes], keep: int
) -> None:
    content = encode(*file)
    keep %= len(content)
    assert theirs(content[:keep]) is None
    assert isinstance(ours(path, content[:keep]), str)


DTYPES = {
    "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2, "F16": np.float16, "F32": np.float32, "F64": np.float64,
    "I8": np.int8, "U16": np.uint16, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_,
}  # fmt: skip


def test_values_survive_and_views_are_read_only_maps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    assert file.metadata == {"format": "pt"}
    for name, expected in tensors.items():
        view = file.tensor(name)
        assert view.dtype == expected.dtype
        assert np.array_equal(view, expected)
        assert not view.flags.writeable
        assert not view.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 1


def test_two_views_share_memory_and_outlive_release_and_close(tmp_path: Path) -> None:
    expected = np.arange(100_000, dtype=np.float32)
    save_file({"a": expected}, tmp_path / "x.safetensors")
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    view = file.tensor("a")
    assert np.shares_memory(view, file.tensor("a"))
    file.release("a")
    assert np.array_equal(view, expected)
    file.close()
    file.release("a")
    assert np.array_equal(view, expected)
    with pytest.raises(ValueError, match="closed"):
        file.tensor("a")


def test_opening_reads_no_data_and_release_drops_resident_pages(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones(4 << 20, np.float32)}, path)  # 16 MiB

    def resident_kilobytes() -> int:
        lines = Path("/proc/self/smaps").read_text().split(str(path), 1)[1].splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs /proc/self/smaps")
    file = SafetensorsFile.open(path)
    assert resident_kilobytes() < 1024
    assert file.tensor("a").sum() == 4 << 20
    assert resident_kilobytes() > 15 << 10
    file.release("a")
    assert resident_kilobytes() < 1024


def test_four_and_six_bit_tensors_are_refused_only_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode({"a": entry("F4", [4], (0, 2))}, b"12"))
    file = SafetensorsFile.open(path)
    assert file.tensors["a"].num_bytes == 2
    with pytest.raises(CheckpointError, match="stored as F4"):
        file.tensor("a")


def test_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        SafetensorsFile.open(path)


def test_truncation_gives_expected_and_actual_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1000, np.float32)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=rf"{len(content):,} bytes.*{len(content) - 100:,}"):
        SafetensorsFile.open(path)
