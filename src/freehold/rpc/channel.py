"""gRPC channel and server settings, the same on every link of the house."""

from __future__ import annotations

import grpc

# HTTP/2 keepalive finds a lost host; a hang is found by the heartbeat on top of it.
OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    # A worker that comes back is dialled at once, not after the default backoff of minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Loopback tests and several houses on one host must not share a subchannel pool.
    ("grpc.use_local_subchannel_pool", 1),
    # A second process on a taken port fails at once instead of sharing its connections.
    ("grpc.so_reuseport", 0),
]


def connect(address: str) -> grpc.aio.Channel:
    """An insecure asyncio channel to `host:port`; mutual TLS comes with the hardening issue."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def server() -> grpc.aio.Server:
    """An asyncio server with the same settings; the caller adds services and a port."""
    return grpc.aio.server(options=OPTIONS)
