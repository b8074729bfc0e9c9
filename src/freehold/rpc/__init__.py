"""Generated protobuf (v1/) and channel settings (channel.py), nothing else."""
