#!/usr/bin/env bash
# The tests, with their own set-up on first use: tests/run.sh [--slow] [pytest arguments...]
#   tests/run.sh                     everything but the slow tests
#   tests/run.sh --slow              those too
#   tests/run.sh tests/data -x -v    a part, as pytest takes it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

marks=(-m "not slow")
arguments=()
for word in "$@"; do
  case $word in
    --slow) marks=() ;;
    --help)
      sed -n '2,5s/^# *//p' tests/run.sh
      exit 0
      ;;
    *) arguments+=("$word") ;;
  esac
done

sep_extra=dev
. egs/common/env.sh
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}  # threads that wait sleep
python -m pytest "${marks[@]}" "${arguments[@]}"
