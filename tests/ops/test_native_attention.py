"""Paged attention of the native kernels against the truth, over contexts longer than one run of
keys, and with itself: in pieces, in a crowd, on more threads, over memory that held other keys."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.ops.native_ops import ISAS, native, random

from freehold.ops import BatchLayout
from freehold.ops.reference import ReferenceOps
from freehold.types import CacheFormat

REFERENCE = ReferenceOps()
# Softmax weights are rounded to bfloat16: each errs by at most 2^-8 of itself, and the result by as
# much of the weighted |values|. Scores here reach 20, whose last bit is 2e-6; a sum of 128 products
# in another order errs by a few of those, and a softmax weight by as much relative to itself.
WEIGHT_ERROR, SCORE_ERROR = 2.0**-8, 3e-5
HARDWARE_DOT = {"avx512_bf16", "amx"}  # whose bfloat16 products round as the hardware does
FAST = native.available_isas()[0]


@pytest.fixture(params=ISAS)
def ops(request: pytest.FixtureRequest):
    return native.NativeOps(num_threads=2, isa=request.param)


def bf16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


class Paging:
    """Requests of these lengths in blocks dealt out at random."""

    def __init__(self, lengths: list[int], block_size: int, seed: int = 0) -> None:
        counts = [-(-length // block_size) for length in lengths]
        self.num_blocks = sum(counts) + 3
        blocks = np.random.default_rng(seed).permutation(self.num_blocks)
        self.lengths, self.block_size = lengths, block_size
        self.tables = np.full((len(lengths), max(counts)), -1, np.int32)
        for r, count in enumerate(counts):
            self.tables[r, :count], blocks = blocks[:count], blocks[count:]
        self.starts = np.cumsum([0, *lengths])

    def layout(self, spans: list[tuple[int, int]], requests: list[int]) -> BatchLayout:
        """Positions [begin, end) of each of these requests."""
        positions = [np.arange(*span) for span in spans]
        size = self.block_size
        slots = [
            self.tables[r, p // size] * size + p % size
            for r, p in zip(requests, positions, strict=True)
        ]
        return BatchLayout(
            positions=np.concatenate(positions).astype(np.int32),
            slots=np.concatenate(slots).astype(np.int64),
            query_starts=np.cumsum([0, *(len(p) for p in positions)]).astype(np.int32),
            context_lens=np.array([end for _, end in spans], np.int32),
            block_tables=self.tables[requests],
            block_size=size,
        )

    def whole(self) -> BatchLayout:
        return self.layout([(0, n) for n in self.lengths], list(range(len(self.lengths))))

    def rows(self, spans: list[tuple[int, int]], requests: list[int]) -> np.ndarray:
        """Where those positions stand among the rows of `whole`."""
        return np.concatenate(
            [self.starts[r] + np.arange(*span) for r, span in zip(requests, spans, strict=True)]
        )


BF16, INT8 = CacheFormat.BF16, CacheFormat.INT8


class Grouped:
    def __init__(
        self,
        heads: int,
        kv_heads: int,
        dim: int,
        format: CacheFormat = BF16,
        window: int | None = None,
    ) -> None:
        self.heads, self.kv_heads, self.dim, self.format = heads, kv_heads, dim, format
        self.window = window

    def arrays(self, n: int) -> tuple[np.ndarray, ...]:
        k, v = (
            random(n, self.kv_heads, self.dim, seed=1),
            random(n, self.kv_heads, self.dim, seed=2),
        )
        return bf16(2 * random(n, self.heads, self.dim)), bf16(k), bf16(v)

    def cache(self, ops, paging: Paging):
        shape = paging.num_blocks, paging.block_size, self.kv_heads, self.dim
        return ops.grouped_cache(*shape, self.format)

    def attend(self, ops, arrays, cache, layout, rows=slice(None)) -> np.ndarray:
        q, k, v = arrays
        q, k, v = q[rows], k[rows], v[rows]
        return ops.grouped_attention(q, k, v, cache, layout, 0.2, self.window)

    def weighted_magnitudes(self, arrays, paging, layout) -> np.ndarray:
        q, k, v = arrays
        return self.attend(REFERENCE, (q, k, np.abs(v)), self.cache(REFERENCE, paging), layout)


class Latent:
    def __init__(self, heads: int, dim: int, value_dim: int, format: CacheFormat = BF16) -> None:
        self.heads, self.dim, self.value_dim, self.format = heads, dim, value_dim, format

    def arrays(self, n: int) -> tuple[np.ndarray, ...]:
        return bf16(2 * random(n, self.heads, self.dim)), bf16(random(n, self.dim, seed=1))

    def cache(self, ops, paging: Paging):
        return ops.latent_cache(paging.num_blocks, paging.block_size, self.dim, self.format)

    def attend(self, ops, arrays, cache, layout, rows=slice(None)) -> np.ndarray:
        q, latent = arrays
        return ops.latent_attention(q[rows], latent[rows], cache, layout, 0.2, self.value_dim)

    def weighted_magnitudes(self, arrays, paging, layout) -> np.ndarray:
        q, latent = arrays  # as one key head, whose values may be another array than its keys
        kind = Grouped(self.heads, 1, self.dim, self.format)
        arrays = q, latent[:, None], np.abs(latent[:, None])
        cache = kind.cache(REFERENCE, paging)
        return kind.attend(REFERENCE, arrays, cache, layout)[..., : self.value_dim]


KINDS = {
    "grouped-6-2-64": Grouped(6, 2, 64),
    "grouped-3-3-8": Grouped(3, 3, 8),
    "grouped-40-1-40": Grouped(40, 1, 40),
    "grouped-7-1-128": Grouped(7, 1, 128),
    "latent-4": Latent(4, 80, 64),
    "latent-16": Latent(16, 72, 56),
    "latent-20": Latent(20, 48, 32),
    "window-9-grouped-6-2-64": Grouped(6, 2, 64, window=9),
    "window-1-grouped-7-1-40": Grouped(7, 1, 40, window=1),
    "window-260-grouped-3-3-8": Grouped(3, 3, 8, window=260),
    "window-33-int8-grouped-6-2-64": Grouped(6, 2, 64, INT8, window=33),
    "int8-grouped-6-2-64": Grouped(6, 2, 64, INT8),
    "int8-grouped-7-1-36": Grouped(7, 1, 36, INT8),
    "int8-latent-20": Latent(20, 48, 32, INT8),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def assert_equals_the_truth(ops, kind, arrays, paging) -> None:
    layout = paging.whole()
    expected = kind.attend(REFERENCE, arrays, kind.cache(REFERENCE, paging), layout)
    got = kind.attend(ops, arrays, kind.cache(ops, paging), layout)
    bound = WEIGHT_ERROR * kind.weighted_magnitudes(arrays, paging, layout) + SCORE_ERROR
    assert (np.abs(got - expected) <= bound).all()


@kinds
@pytest.mark.parametrize("block_size", [1, 5, 16, 48])
def test_attention_equals_the_truth(ops, kind, block_size) -> None:
    paging = Paging([1, 70, 0, 19], block_size)
    assert_equals_the_truth(ops, kind, kind.arrays(90), paging)


@kinds
def test_long_contexts_are_folded_from_their_runs(kind) -> None:
    ops = native.NativeOps(2, FAST)
    paging = Paging([613, 300], 16)
    assert_equals_the_truth(ops, kind, kind.arrays(913), paging)


@kinds
@pytest.mark.parametrize("block_size", [16, 24])
def test_a_token_has_the_same_bits_in_any_batch_and_however_its_prompt_was_cut(
    ops, kind, block_size
) -> None:
    lengths = [290, 40, 17]
    paging = Paging(lengths, block_size)
    arrays = kind.arrays(sum(lengths))
    whole = kind.attend(ops, arrays, kind.cache(ops, paging), paging.whole())

    cache = kind.cache(ops, paging)
    everyone = [0, 1, 2]
    for spans in ([(0, 250), (0, 1), (0, 16)], [(250, 289), (1, 38), (16, 17)]):
        rows = paging.rows(spans, everyone)
        got = kind.attend(ops, arrays, cache, paging.layout(spans, everyone), rows)
        assert np.array_equal(got, whole[rows])
    for request, span in ((0, (289, 290)), (1, (38, 39)), (1, (39, 40))):  # alone, one at a time
        rows = paging.rows([span], [request])
        got = kind.attend(ops, arrays, cache, paging.layout([span], [request]), rows)
        assert np.array_equal(got, whole[rows])


@kinds
def test_the_number_of_threads_does_not_change_a_bit(kind) -> None:
    # few queries over a long context: several threads share one query's runs
    paging = Paging([1100], 16)
    arrays = kind.arrays(1100)
    results = []
    for num_threads in (1, 2, 5):
        ops = native.NativeOps(num_threads, FAST)
        cache = kind.cache(ops, paging)
        kind.attend(ops, arrays, cache, paging.layout([(0, 1097)], [0]), slice(0, 1097))
        last = paging.layout([(1097, 1100)], [0])
        results.append(kind.attend(ops, arrays, cache, last, slice(1097, 1100)))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@kinds
@pytest.mark.parametrize("in_hardware", [False, True])
def test_instruction_sets_that_round_alike_give_the_same_bits(kind, in_hardware) -> None:
    paging = Paging([50], 16)
    arrays = kind.arrays(50)
    results = []
    for isa in ISAS:
        if (isa in HARDWARE_DOT) == in_hardware:
            ops = native.NativeOps(1, isa)
            results.append(kind.attend(ops, arrays, kind.cache(ops, paging), paging.whole()))
    assert all(np.array_equal(results[0], result) for result in results)


@kinds
def test_what_a_block_held_before_does_not_leak(ops, kind) -> None:
    paging = Paging([45], 16)
    arrays = kind.arrays(45)
    clean = kind.attend(ops, arrays, kind.cache(ops, paging), paging.whole())
    cache = kind.cache(ops, paging)
    poison = tuple(np.full_like(a, np.nan) for a in arrays)
    kind.attend(ops, poison, cache, paging.whole())
    for span in ((0, 20), (20, 45)):
        got = kind.attend(ops, arrays, cache, paging.layout([span], [0]), slice(*span))
        assert np.array_equal(got, clean[slice(*span)])


def test_caches_take_two_bytes_a_value_or_one_and_a_scale() -> None:
    ops = native.NativeOps(1)
    assert ops.grouped_cache(7, 16, 2, 64).num_bytes == 7 * 16 * 2 * 64 * 2 * 2
    assert ops.latent_cache(7, 16, 576).num_bytes == 7 * 16 * 576 * 2
    for either in (ops, REFERENCE):
        assert either.grouped_cache(7, 16, 2, 64, INT8).num_bytes == 7 * 16 * 2 * 2 * (64 + 4)
        assert either.latent_cache(7, 16, 576, INT8).num_bytes == 7 * 16 * (576 + 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("slots", -1, "Slot -1 is outside"),
        ("slots", 4 * 16, "Slot 64 is outside"),
        ("positions", -2, "positions of a request must ascend"),
        ("positions", 32, "beyond its request's block table"),
        ("block_tables", -1, "Block -1 is outside"),
        ("block_tables", 4, "Block 4 is outside"),
        ("query_starts", 3, "query_starts"),
    ],
)
@pytest.mark.parametrize("kind", [KINDS["grouped-6-2-64"], KINDS["latent-4"]])
def test_indices_outside_the_cache_are_refused(ops, kind, field, value, message) -> None:
    paging = Paging([20], 16)
    paging.tables[:] = [[0, 1]]
    paging.num_blocks = 4
    layout, cache = paging.whole(), kind.cache(ops, paging)
    getattr(layout, field).flat[-1] = value
    with pytest.raises((IndexError, ValueError), match=message):
        kind.attend(ops, kind.arrays(20), cache, layout)


def test_arrays_that_do_not_fit_the_cache_are_refused(ops) -> None:
    paging = Paging([20], 16)
    kind = Grouped(4, 2, 8)
    cache, layout = kind.cache(ops, paging), paging.whole()
    with pytest.raises(ValueError, match="q has shape"):
        Grouped(4, 2, 16).attend(ops, Grouped(4, 2, 16).arrays(20), cache, layout)
    with pytest.raises(ValueError, match="multiple of key heads"):
        kind.attend(ops, Grouped(3, 2, 8).arrays(20), cache, layout)
    with pytest.raises(ValueError, match="latent cache needs"):
        kind.attend(ops, kind.arrays(20), ops.latent_cache(4, 16, 8), layout)
    with pytest.raises(ValueError, match="grouped cache needs"):
        Latent(4, 8, 8).attend(ops, Latent(4, 8, 8).arrays(20), cache, layout)
    with pytest.raises(ValueError, match="another block size"):
        kind.attend(ops, kind.arrays(20), ops.grouped_cache(9, 8, 2, 8), layout)
    with pytest.raises(ValueError, match="head_dim must be even"):
        ops.grouped_cache(1, 16, 1, 7)
    with pytest.raises(ValueError, match="at least one key"):
        Grouped(4, 2, 8, window=0).attend(ops, kind.arrays(20), cache, layout)


def test_a_token_sees_the_keys_of_its_window_and_no_others() -> None:
    paging, kind = Paging([40], 16), Grouped(4, 2, 8, window=7)
    q, k, v = kind.arrays(40)
    changed = k.copy(), v.copy()
    for array in changed:
        array[:33] = 5  # of 33 … 39, the window of the last token, nothing
    last = [
        kind.attend(REFERENCE, (q, *kv), kind.cache(REFERENCE, paging), paging.whole())[-1]
        for kv in ((k, v), changed)
    ]
    assert np.array_equal(*last)
    k[33] = 5  # and its first key is seen
    seen = kind.attend(REFERENCE, (q, k, v), kind.cache(REFERENCE, paging), paging.whole())[-1]
    assert not np.array_equal(seen, last[0])
