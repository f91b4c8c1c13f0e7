# How programs are started, sourced by run.sh; egs/mini_sounds/cmd.sh shows it for Slurm.
run() {
  python "$@"
}
