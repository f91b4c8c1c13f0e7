# How programs are started, sourced by run.sh. `run` starts a program of one process, `train` one
# that uses every GPU of --ngpu. On Slurm, with one task a GPU:
#     run() { srun --ntasks 1 --cpus-per-task 16 python "$@"; }
#     train() { srun --ntasks 1 --cpus-per-task 16 --gpus "$ngpu" \
#         torchrun --standalone --nproc-per-node "$ngpu" "$@"; }
run() {
  python "$@"
}

train() {
  if [ "$ngpu" -gt 1 ]; then
    torchrun --standalone --nproc-per-node "$ngpu" "$@"
  else
    python "$@"
  fi
}
