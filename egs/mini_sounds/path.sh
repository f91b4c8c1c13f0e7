# Where things are, sourced by run.sh.
root=$(cd ../.. && pwd)
recipes=$root/recipes
