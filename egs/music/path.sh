# Where things are, sourced by run.sh.
root=$(cd ../.. && pwd)
recipes=$root/recipes
# threads that wait sleep: on a busy machine spinning ones slow everything down many times
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
