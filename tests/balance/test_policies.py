"""Balancing as pure functions: affinity, its escape, and stability when nodes come and go."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from freehold.balance import NodeState, least_outstanding, prefix_affinity, rendezvous

BOUND = 1000

node_lists = st.lists(
    st.builds(
        NodeState,
        node_id=st.text("abcdef", min_size=1, max_size=4),
        outstanding_tokens=st.integers(0, 5000),
        num_requests=st.integers(0, 3),
        max_requests=st.integers(1, 3),
    ),
    max_size=6,
    unique_by=lambda node: node.node_id,
)
keys = st.binary(min_size=1, max_size=16)


def idle(count: int) -> list[NodeState]:
    return [NodeState(f"node-{k}", 0, 0, 8) for k in range(count)]


@given(node_lists, keys)
def test_a_chosen_node_has_room_and_none_is_chosen_only_when_all_are_full(nodes, key):
    chosen = prefix_affinity(nodes, key, BOUND)
    if chosen is None:
        assert not any(node.has_room for node in nodes)
    else:
        assert chosen in nodes
        assert chosen.has_room


@given(node_lists, keys)
def test_the_chosen_node_never_exceeds_the_least_loaded_by_more_than_the_bound(nodes, key):
    chosen, least = prefix_affinity(nodes, key, BOUND), least_outstanding(nodes)
    if chosen is not None:
        assert chosen.outstanding_tokens - least.outstanding_tokens <= BOUND


@given(node_lists, keys, st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_matter(nodes, key, random):
    shuffled = random.sample(nodes, len(nodes))
    assert prefix_affinity(nodes, key, BOUND) == prefix_affinity(shuffled, key, BOUND)
    assert least_outstanding(nodes) == least_outstanding(shuffled)


def test_equal_prefixes_go_to_one_node_and_different_ones_spread():
    nodes = idle(4)
    keys = [f"key {k}".encode() for k in range(400)]
    chosen = [prefix_affinity(nodes, key).node_id for key in keys]
    assert chosen == [prefix_affinity(nodes, key).node_id for key in keys]
    counts = [chosen.count(node.node_id) for node in nodes]
    assert min(counts) > 60, counts


def test_affinity_is_left_when_the_preferred_node_is_too_far_behind():
    nodes = idle(3)
    preferred = rendezvous(b"key", nodes)
    at = nodes.index(preferred)
    nodes[at] = replace(preferred, outstanding_tokens=BOUND)
    assert prefix_affinity(nodes, b"key", BOUND) is nodes[at]
    nodes[at] = replace(preferred, outstanding_tokens=BOUND + 1)
    assert prefix_affinity(nodes, b"key", BOUND) is least_outstanding(nodes)


def test_affinity_is_left_when_the_preferred_node_has_no_room():
    nodes = idle(3)
    preferred = rendezvous(b"key", nodes)
    nodes[nodes.index(preferred)] = replace(preferred, num_requests=8)
    assert prefix_affinity(nodes, b"key", BOUND).node_id != preferred.node_id


def test_a_node_that_leaves_moves_only_its_own_prefixes():
    nodes = idle(5)
    keys = [f"key {k}".encode() for k in range(300)]
    before = {key: rendezvous(key, nodes).node_id for key in keys}
    for key in keys:
        after = rendezvous(key, nodes[1:]).node_id
        assert after == before[key] or before[key] == "node-0"
