"""The processes of the house: gateway, orchestrator, worker. Each can run alone on its host.

They speak proto/freehold/v1 with each other; `convert.py` is the only place where protobuf
meets the types of the house. Read `orchestrator/dispatch.py` next.
"""
