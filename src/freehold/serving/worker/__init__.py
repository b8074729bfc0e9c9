"""A worker: one engine in a process, or an OpenAI-compatible server behind one gRPC face."""
