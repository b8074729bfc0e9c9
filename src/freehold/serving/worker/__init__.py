"""A worker: one engine in a process, or an OpenAI-compatible server behind the same gRPC face.

Renders templates, tokenizes and tells reasoning from answer; the orchestrator numbers, balances
and resumes. Read `main.py`, then `service.py`.
"""

from freehold.serving.worker.main import Worker, run, serve
from freehold.serving.worker.settings import WorkerSettings

__all__ = ["Worker", "WorkerSettings", "run", "serve"]
