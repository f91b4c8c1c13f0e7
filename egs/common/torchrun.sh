#!/usr/bin/env bash
# Start a program with several processes on this machine: torchrun.sh COUNT PROGRAM ARGUMENTS...
# As a step of Slurm, one task a node, all nodes of the step train together. They meet at the first
# one, at a port below 32000 that the numbers of job and step give; SEP_PORT names another.
set -euo pipefail

count=$1
shift
share=$(($(nproc) / count))
export OMP_NUM_THREADS=$((share > 1 ? share : 1))
nodes=${SLURM_STEP_NUM_NODES:-1}
if [ "$nodes" -eq 1 ]; then
  exec torchrun --standalone --nproc-per-node "$count" "$@"
fi
first=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
port=${SEP_PORT:-$((20000 + (SLURM_JOB_ID * 31 + SLURM_STEP_ID) % 12000))}
exec torchrun --nnodes "$nodes" --node-rank "$SLURM_NODEID" --nproc-per-node "$count" \
  --master-addr "$first" --master-port "$port" "$@"
