"""A gateway on a real socket before a fake orchestrator on another: what tests hold in hand."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import openai
from tests.serving.gateway.fake_orchestrator import FakeOrchestrator, serving

from freehold.serving.gateway import Gateway, GatewaySettings, serve

MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass
class House:
    fake: FakeOrchestrator
    gateway: Gateway
    key: str
    openai: openai.AsyncOpenAI
    http: httpx.AsyncClient  # with the key

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}"

    @property
    def socket_url(self) -> str:
        return f"ws://{self.gateway.address}/v1/stream"


@asynccontextmanager
async def keeping_house(directory, **settings):
    """`settings` go over those that make the tests fast."""
    fake = FakeOrchestrator()
    fast = {
        "body_timeout_seconds": 0.5,
        "send_timeout_seconds": 1.0,
        "max_body_bytes": 256 * 1024,
        "max_requests_per_connection": 4,
        "drain_seconds": 0.2,
    }
    async with serving(fake) as orchestrator:
        chosen = GatewaySettings(orchestrator, directory / "keys.db", port=0, **fast | settings)
        async with serve(chosen) as gateway:
            key = gateway.keys.add("test")
            url = f"http://{gateway.address}"
            headers = {"Authorization": f"Bearer {key}"}
            async with (
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
                httpx.AsyncClient(base_url=url, headers=headers) as http,
            ):
                yield House(fake, gateway, key, client, http)


async def until(condition, seconds: float = 5.0) -> None:
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.005)
