# Where the programs of this recipe run, sourced by run.sh; ../common/launch.sh says what that does.
launch=${SEP_LAUNCH:-local}  # local: python, or torchrun where --ngpu is above 1; slurm: srun
nodes=1                      # Slurm: machines that train together, with --ngpu processes on each
cpus=16                      # Slurm: cores of a program
slurm=()                     # Slurm: more for every srun, (--partition gpu --time 24:00:00)
. ../common/launch.sh
