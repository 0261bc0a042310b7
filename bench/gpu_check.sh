#!/usr/bin/env bash
# Checks and measures the GPU kernels on this machine and writes a report: bash bench/gpu_check.sh [--help]
# A plain checkout with torch and Triton will do: nothing is installed and nothing is downloaded.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

python="${PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x "$root/.venv/bin/python" ]; then python="$root/.venv/bin/python"; else python=python3; fi
fi

if [ ! -w "$root/gradsim_kernels" ]; then # a read-only checkout: the library is built in a copy of it
  copy="$(mktemp -d)"
  (cd "$root" && cp -r bench csrc gradsim_kernels python tests pyproject.toml setup.py setup_native.py "$copy")
  chmod -R u+w "$copy"
  root="$copy"
fi

unset GRADSIM_BACKEND GRADSIM_DISABLE_NATIVE GRADSIM_CPU_ISA # they would choose for us
export PYTHONPATH="$root:$root/python${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
cd "$root"
exec "$python" -m bench.gpu "$@"
