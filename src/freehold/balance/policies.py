"""Balancing policies: pure functions from node states to the node that takes the request.

They know nothing of sockets, leases or queues; who calls them passes only nodes that may be
chosen. Read `serving/orchestrator/admission.py` next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

# A cached prefix saves its prompt's computation; beyond this much more waiting work it is not
# worth the wait. About 8 long prompts of 512 tokens.
IMBALANCE_BOUND_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a policy may know of one node that can take a request now."""

    node_id: str
    outstanding_tokens: int  # prompt tokens not yet computed + output tokens still allowed
    num_requests: int = 0  # it computes now
    max_requests: int = 1  # it computes at once

    @property
    def has_room(self) -> bool:
        return self.num_requests < self.max_requests


def least_outstanding(nodes: Sequence[NodeState]) -> NodeState | None:
    """The node with room that has the least work before it; ties go to the smaller id."""
    return min(
        (node for node in nodes if node.has_room),
        key=lambda node: (node.outstanding_tokens, node.num_requests, node.node_id),
        default=None,
    )


def rendezvous(key: bytes, nodes: Sequence[NodeState]) -> NodeState:
    """Highest-random-weight hashing: a node that leaves or joins moves only its own keys."""

    def weight(node: NodeState) -> bytes:
        return hashlib.blake2b(node.node_id.encode(), key=key[:64], digest_size=8).digest()

    return max(nodes, key=weight)


def prefix_affinity(
    nodes: Sequence[NodeState],
    prefix_key: bytes,
    imbalance_bound_tokens: int = IMBALANCE_BOUND_TOKENS,
) -> NodeState | None:
    """The node whose prefix cache likely holds this prompt's start, unless it has far more work.

    `prefix_key` is a digest of the prompt's leading part; equal prefixes prefer one node. It
    loses the request to the least loaded node when it has no room, or more than
    `imbalance_bound_tokens` outstanding tokens above that node's. None when no node has room.
    """
    least = least_outstanding(nodes)
    if least is None:
        return None
    preferred = rendezvous(prefix_key, nodes)
    excess_tokens = preferred.outstanding_tokens - least.outstanding_tokens
    if preferred.has_room and excess_tokens <= imbalance_bound_tokens:
        return preferred
    return least
