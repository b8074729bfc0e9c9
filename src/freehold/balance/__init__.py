"""Which node gets the next request: node state as plain data, policies as pure functions.

Knows no transport and no worker. Read `policies.py`.
"""

from freehold.balance.policies import (
    IMBALANCE_BOUND_TOKENS,
    NodeState,
    least_outstanding,
    prefix_affinity,
    rendezvous,
)

__all__ = [
    "IMBALANCE_BOUND_TOKENS",
    "NodeState",
    "least_outstanding",
    "prefix_affinity",
    "rendezvous",
]
