"""The orchestrator: one per house. Admits, balances, numbers tokens, survives its workers.

Loads no model and reads no text. Read `main.py`, then `dispatch.py`.
"""

from freehold.serving.orchestrator.main import Orchestrator, run, serve
from freehold.serving.orchestrator.settings import OrchestratorSettings

__all__ = ["Orchestrator", "OrchestratorSettings", "run", "serve"]
