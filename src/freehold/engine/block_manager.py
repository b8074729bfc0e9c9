"""Which request holds which block of the paged cache, and which full blocks can be shared.

Knows no model, no arrays and no policy: it counts references and chains hashes. Prefix reuse
follows vLLM: a full block's hash covers all tokens before it, a freed block keeps its content
until its turn in the LRU order comes. Read `model_runner.py` next.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

import numpy as np

from freehold.engine.request import Request


class BlockStore(Protocol):
    """Blocks beyond this process's life: `prefix_store.py`."""

    def keep(self, block_hash: bytes, block: int, /) -> None: ...

    def restore(self, block_hash: bytes, block: int, /) -> bool: ...


class BlockManager:
    """`revision` names the weights: caches of two revisions never share a hash."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        prefix_cache: bool = True,
        revision: str = "",
        store: BlockStore | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._prefix_cache = prefix_cache
        self._store = store
        self._root = blake2b(revision.encode(), digest_size=16).digest()
        self._ref_counts = [0] * num_blocks
        # Eviction order, soonest first: blocks that nobody can reuse, then cached ones by age.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._cached: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_free_blocks(self) -> int:
        """Blocks no request holds; those that still keep a cached prefix are among them."""
        return len(self._free)

    def admit(self, request: Request, spare: int = 0) -> bool:
        """Give a waiting request blocks for all tokens it knows, cached prefix first.

        Sets `num_computed_tokens` to what the prefix cache covers. Changes nothing and returns
        False if that would leave fewer than `spare` blocks free.
        """
        num_reusable = self._num_reusable_blocks(request)
        prefix = self._match_prefix(request, num_reusable)
        num_new = self._num_blocks_for(request.num_tokens) - len(prefix)
        num_revived = sum(1 for block in prefix if self._ref_counts[block] == 0)
        if num_new + num_revived + spare > len(self._free):
            return False
        for block in prefix:
            if self._ref_counts[block] == 0:
                del self._free[block]
            self._ref_counts[block] += 1
        request.block_table.extend(prefix)
        for _ in range(num_new):
            request.block_table.append(self._take())
        num_cached = self._restore(request, len(prefix), num_reusable)
        request.num_computed_tokens = num_cached * self.block_size
        request.num_cacheable_blocks = num_cached
        return True

    def grow(self, request: Request) -> bool:
        """Extend the block table to all tokens the request knows; False if no block is free."""
        while len(request.block_table) * self.block_size < request.num_tokens:
            if not self._free:
                return False
            request.block_table.append(self._take())
        return True

    def grow_for_drafts(self, request: Request, num_drafts: int) -> int:
        """Extend the block table past the tokens the request knows, as far as free blocks go: for
        how many of the drafts there is room. `shrink` takes the blocks back."""
        missing = self._num_blocks_for(request.num_tokens + num_drafts) - len(request.block_table)
        for _ in range(min(missing, len(self._free))):
            request.block_table.append(self._take())
        room = len(request.block_table) * self.block_size - request.num_tokens
        return min(num_drafts, room)

    def shrink(self, request: Request) -> None:
        """Take back the blocks beyond the tokens the request knows: of drafts that were refused."""
        for _ in range(len(request.block_table) - self._num_blocks_for(request.num_tokens)):
            block = request.block_table.pop()  # never full, so nobody shares it
            self._ref_counts[block] = 0
            self._free[block] = None
            self._free.move_to_end(block, last=False)

    def commit(self, request: Request) -> None:
        """Offer the blocks that `num_computed_tokens` has filled since last time for reuse."""
        num_full = request.num_computed_tokens // self.block_size
        if num_full == request.num_cacheable_blocks or not self._prefix_cache:
            return
        self._extend_hashes(request, num_full)
        for i in range(request.num_cacheable_blocks, num_full):
            self._offer(request.block_hashes[i], request.block_table[i])
        request.num_cacheable_blocks = num_full

    def free(self, request: Request) -> None:
        """Take all blocks back; a prefix's head is to outlive its tail in the LRU order."""
        for block in reversed(request.block_table):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)
        del request.block_table[:]
        request.num_computed_tokens = 0
        request.num_cacheable_blocks = 0

    def check(self, requests: Iterable[Request]) -> None:
        """Assert conservation, given all live requests; for tests, after every step."""
        held = Counter(block for request in requests for block in request.block_table)
        assert sorted([*held, *self._free]) == list(range(self.num_blocks)), "lost or doubled"
        assert all(self._ref_counts[b] == held[b] for b in range(self.num_blocks)), "references"
        assert {b: h for h, b in self._cached.items()} == self._hash_of, "hashes"
        seen_cached = False
        for block in self._free:
            seen_cached |= block in self._hash_of
            assert seen_cached == (block in self._hash_of), "uncached blocks are evicted first"

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        if (block_hash := self._hash_of.pop(block, None)) is not None:
            del self._cached[block_hash]
        self._ref_counts[block] = 1
        return block

    def _num_reusable_blocks(self, request: Request) -> int:
        """How many full blocks could come from a cache, if they were there."""
        # Prompt logprobs need the logits, so every prompt token has to be computed.
        if not self._prefix_cache or request.needs_prompt_logprobs:
            return 0
        # The last token is computed in any case: its logits are what the next one is drawn from.
        num_full = (request.num_tokens - 1) // self.block_size
        self._extend_hashes(request, num_full)
        return num_full

    def _match_prefix(self, request: Request, num_reusable: int) -> list[int]:
        prefix = []
        for block_hash in request.block_hashes[:num_reusable]:
            if (block := self._cached.get(block_hash)) is None:
                break
            prefix.append(block)
        return prefix

    def _restore(self, request: Request, num_cached: int, num_reusable: int) -> int:
        """Fill the blocks after the cached ones from the store, and have those kept that are now
        used again; the number of blocks that need no computing."""
        if self._store is None:
            return num_cached
        for block_hash, block in zip(
            request.block_hashes[:num_cached], request.block_table, strict=False
        ):
            self._store.keep(block_hash, block)
        while num_cached < num_reusable and self._store.restore(
            request.block_hashes[num_cached], request.block_table[num_cached]
        ):
            self._offer(request.block_hashes[num_cached], request.block_table[num_cached])
            num_cached += 1
        return num_cached

    def _offer(self, block_hash: bytes, block: int) -> None:
        # Two requests may compute the same block at once: the first one is kept.
        if block_hash not in self._cached:
            self._cached[block_hash] = block
            self._hash_of[block] = block_hash

    def _extend_hashes(self, request: Request, num_full: int) -> None:
        hashes = request.block_hashes
        for i in range(len(hashes), num_full):
            tokens = request.token_ids(i * self.block_size, (i + 1) * self.block_size)
            parent = hashes[i - 1] if i else self._root
            content = np.array(tokens, np.int32).tobytes()
            hashes.append(blake2b(parent + content, digest_size=16).digest())

    def _num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)
