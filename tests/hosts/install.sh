#!/usr/bin/env bash
# Each host in an environment of its own, because their versions of the MCP SDK exclude each other. Needs uv and npm.
set -euo pipefail
cd "$(dirname "$0")"

for pins in requirements/*.txt; do
  name=$(basename "$pins" .txt)
  uv venv --quiet --clear ".envs/$name"
  uv pip install --quiet --python ".envs/$name" -r "$pins"
done
npm install --no-audit --no-fund --no-package-lock --loglevel=error
