"""The gateway: HTTP and WebSocket on one side, the orchestrator's gRPC on the other.

Loads no model, renders no template, keeps nothing but API keys. Read `main.py`, then `app.py`.
"""

from freehold.serving.gateway.main import Gateway, run, serve
from freehold.serving.gateway.settings import GatewaySettings

__all__ = ["Gateway", "GatewaySettings", "run", "serve"]
