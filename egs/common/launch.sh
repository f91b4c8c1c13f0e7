# How the programs of a recipe are started, sourced by its cmd.sh, which sets:
#     launch=local   this machine; slurm: every program is a job of its own, by srun
#     nodes=1        Slurm: machines that train together, with --ngpu processes on each
#     cpus=16        Slurm: cores of a program, on each machine
#     slurm=()       Slurm: more options for every srun, such as (--partition gpu --time 24:00:00)
# `run` starts a program of one process. `train` starts one that takes any number of them, one a GPU
# (with --device cpu: on the processor): python for a single one, torchrun for --ngpu above 1, and
# srun torchrun on Slurm. Each process draws its own batch: a step is of nodes x ngpu batches.
#
# With launch=slurm, run.sh itself stays where it is called, such as on a login node, and waits while
# a program is in the queue; all nodes need the same files under the same names. With local, a whole
# recipe can be a job of one machine: sbatch --gpus 1 --wrap 'egs/esc50/run.sh --esc50 DIR'.

launch_fail() {
  echo "error: launch=$launch in cmd.sh: $*" >&2
  exit 2
}

case $launch in
  local)
    cores=$(nproc)
    run() {
      python "$@"
    }
    train() {
      if [ "$ngpu" -gt 1 ]; then
        bash "$root/egs/common/torchrun.sh" "$ngpu" "$@"
      else
        python "$@"
      fi
    }
    ;;
  slurm)
    for name in srun scontrol; do
      command -v "$name" >/dev/null ||
        launch_fail "$name is not on PATH; run this where Slurm is, or set launch=local"
    done
    cores=$cpus
    gpus() {  # options of srun for so many GPUs a node
      [ "$device" = cpu ] || echo "--gpus-per-node $1"
    }
    run() {
      srun --nodes 1 --ntasks 1 --cpus-per-task "$cpus" $(gpus 1) "${slurm[@]}" python "$@"
    }
    train() {
      srun --nodes "$nodes" --ntasks-per-node 1 --cpus-per-task "$cpus" $(gpus "$ngpu") \
        --kill-on-bad-exit=1 "${slurm[@]}" bash "$root/egs/common/torchrun.sh" "$ngpu" "$@"
    }
    ;;
  *) launch_fail "takes local or slurm" ;;
esac
