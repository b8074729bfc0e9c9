#!/bin/sh
# Regenerates src/freehold/rpc/v1 from proto/. Run from the repository root: `make proto`.
# protoc derives Python imports from file paths; the sed puts them under freehold.rpc.
set -eu
out=src/freehold/rpc/v1
tmp=$(mktemp -d)
python -m grpc_tools.protoc -Iproto --python_out="$tmp" --pyi_out="$tmp" --grpc_python_out="$tmp" proto/freehold/v1/*.proto
sed -i 's/from freehold\.v1 import/from freehold.rpc.v1 import/' "$tmp"/freehold/v1/*
mkdir -p "$out"
cp "$tmp"/freehold/v1/* "$out"/
printf '"""Generated from proto/freehold/v1 by `make proto`; do not edit."""\n' > "$out/__init__.py"
rm -r "$tmp"
