"""The fixture `house`; see house.py."""

import pytest_asyncio
from tests.serving.gateway.house import keeping_house


@pytest_asyncio.fixture
async def house(tmp_path):
    async with keeping_house(tmp_path) as kept:
        yield kept
