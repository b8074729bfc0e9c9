"""Freehold: own your DeepSeek-family model. Start reading at docs/structure.md."""

__version__ = "0.1.0"
