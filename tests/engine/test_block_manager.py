"""Blocks are conserved, shared only where all tokens before agree, and evicted oldest first."""

from __future__ import annotations

import pytest
from driving import a_request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.engine.block_manager import BlockManager

SIZE = 4


def computed(manager, request, num_tokens=None):
    """Admit, as if the model then computed `num_tokens` (all) of its tokens."""
    assert manager.admit(request)
    request.num_computed_tokens = request.num_tokens if num_tokens is None else num_tokens
    manager.commit(request)
    return request


def num_cached(manager, prompt):
    """Tokens of `prompt` that a new request would find (looked up, not taken)."""
    probe = a_request("probe", prompt)
    return len(manager._match_prefix(probe, manager._num_reusable_blocks(probe))) * SIZE


def test_a_prefix_is_shared_up_to_the_first_block_that_differs():
    manager = BlockManager(32, SIZE)
    prompt = list(range(20))
    first = computed(manager, a_request("a", prompt))
    assert num_cached(manager, [*prompt, 99]) == 20
    assert num_cached(manager, prompt) == 16, "the last token must be computed"
    assert num_cached(manager, [*prompt[:9], 77, *prompt[10:]]) == 8
    assert num_cached(manager, [77, *prompt[1:]]) == 0, "equal blocks after another beginning"
    second = a_request("b", [*prompt[:13], 50, 51])
    assert manager.admit(second)
    assert second.block_table[:3] == first.block_table[:3]
    assert not set(second.block_table[3:]) & set(first.block_table)
    manager.check([first, second])


def test_only_computed_blocks_are_offered():
    manager = BlockManager(32, SIZE)
    computed(manager, a_request("a", range(20)), num_tokens=11)
    assert num_cached(manager, range(21)) == 8


def test_freed_blocks_stay_cached_until_their_turn_comes():
    manager = BlockManager(8, SIZE)
    old = computed(manager, a_request("old", range(100, 112)))  # 3 blocks
    young = computed(manager, a_request("young", range(200, 212)))  # 3 blocks
    manager.free(old)
    manager.free(young)
    manager.check([])
    assert manager.num_free_blocks == 8
    taker = computed(manager, a_request("taker", range(300, 312)))  # 2 unused blocks, then one
    assert num_cached(manager, range(200, 213)) == 12, "the younger prefix is whole"
    assert num_cached(manager, range(100, 113)) == 8, "the older prefix lost its tail first"
    manager.check([taker])


def test_revisions_never_share():
    prompt = a_request("a", range(8))
    hashes = []
    for revision in ("one", "two"):
        request = a_request("a", prompt.prompt_token_ids)
        computed(BlockManager(8, SIZE, revision=revision), request)
        hashes.append(request.block_hashes)
    assert not set(hashes[0]) & set(hashes[1])


@pytest.mark.parametrize("spare", [0, 1])
def test_refused_admission_changes_nothing(spare):
    manager = BlockManager(4, SIZE)
    holder = computed(manager, a_request("holder", range(7)))
    before = manager.num_free_blocks
    request = a_request("big", range(50, 50 + (2 - spare) * SIZE + 1))
    assert not manager.admit(request, spare)
    assert (manager.num_free_blocks, len(request.block_table)) == (before, 0)
    manager.check([holder, request])


class Blocks(RuleBasedStateMachine):
    """Any order of admitting, growing, computing and freeing keeps the counts right, and a shared
    block always holds the very tokens its new owner would have written there."""

    def __init__(self):
        super().__init__()
        self.manager = BlockManager(12, SIZE)
        self.requests = []
        self.content = {}  # block → tokens from the beginning of whoever wrote it

    @rule(start=st.integers(0, 2), length=st.integers(1, 30))
    def admit(self, start, length):
        request = a_request(len(self.requests), [start + i // 6 for i in range(length)])
        if self.manager.admit(request):
            self.requests.append(request)
            for i in range(request.num_computed_tokens // SIZE):
                tokens = request.token_ids(0, (i + 1) * SIZE)
                assert self.content[request.block_table[i]] == tokens

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), token=st.integers(0, 3))
    def append(self, data, token):
        request = data.draw(st.sampled_from(self.requests))
        request.output_token_ids.append(token)
        if not self.manager.grow(request):
            request.output_token_ids.pop()
            assert self.manager.num_free_blocks == 0

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def compute(self, data):
        request = data.draw(st.sampled_from(self.requests))
        left = request.num_tokens - request.num_computed_tokens
        request.num_computed_tokens += data.draw(st.integers(0, left))
        for i in range(request.num_computed_tokens // SIZE):
            tokens = request.token_ids(0, (i + 1) * SIZE)
            self.content[request.block_table[i]] = tokens
        self.manager.commit(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def free(self, data):
        request = data.draw(st.sampled_from(self.requests))
        self.requests.remove(request)
        self.manager.free(request)

    @invariant()
    def conserved(self):
        self.manager.check(self.requests)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
