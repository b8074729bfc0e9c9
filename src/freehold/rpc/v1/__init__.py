"""Generated from proto/freehold/v1 by `make proto`; do not edit."""
