# Environment set-up, sourced by run.sh and tests/run.sh: `. env.sh`.
# Creates .venv at the repository root on first use, installs the toolkit into it and puts it on
# PATH. Done once, and again when setup.py or the constraints change. SEP_VENV names another place;
# SEP_VENV=none takes the python that is on PATH as it is (a container, conda, a cluster's module).
# SEP_PYTHON names the interpreter to make it from, sep_extra an extra of setup.py to install.

sep_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SEP_VENV=${SEP_VENV:-$sep_root/.venv}

sep_fail() {
  echo "error: $*" >&2
  exit 1
}

sep_find_python() {
  local name
  for name in ${SEP_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

sep_pip() {  # runs pip, shows what it fetches, keeps all it says in $SEP_VENV/setup.log
  "$SEP_VENV/bin/python" -m pip install --disable-pip-version-check --no-compile \
    --progress-bar off "$@" 2>&1 | tee -a "$SEP_VENV/setup.log" |
    awk '/^ *Downloading.* MB\)|^Installing|^ERROR/ {print "  " substr($0, 1, 96); fflush()}'
  return "${PIPESTATUS[0]}"
}

sep_setup() {
  local extra=$1 python began=$SECONDS
  if [ ! -x "$SEP_VENV/bin/python" ]; then
    python=$(sep_find_python) ||
      sep_fail "Python 3.11 or newer is not here; install it (Debian package python3) or set SEP_PYTHON"
    echo "setting up $SEP_VENV with $("$python" --version)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
      sep_fail "$python has no venv module; install the Debian package python3-venv"
    "$python" -m venv "$SEP_VENV" || sep_fail "$SEP_VENV could not be made; is the disk full?"
  fi
  "$SEP_VENV/bin/python" -m pip --version >/dev/null 2>&1 ||
    sep_fail "$SEP_VENV has no pip; delete that folder, install python3-venv and run again"
  echo "installing the toolkit${extra:+ with its $extra extra} (a few minutes the first time)"
  rm -f "$SEP_VENV/setup.log"
  sep_pip -e "$sep_root${extra:+[$extra]}" -c "$sep_root/egs/common/constraints.txt" &&
    # the wheel plays sound fonts; its only dependency, pyaudio, is for live output and needs a driver
    sep_pip --no-deps tinysoundfont ||
    sep_fail "pip failed (is there a network, and room on the disk?): see $SEP_VENV/setup.log"
  echo "set-up took $((SECONDS - began)) s"
}

sep_environment() {
  local extra=${sep_extra:-} wanted marker
  if [ "$SEP_VENV" = none ]; then
    python -c 'import importlib.util as u, sys; sys.exit(not (u.find_spec("sep") and u.find_spec("torch")))' 2>/dev/null ||
      sep_fail "SEP_VENV=none, but the python on PATH has no toolkit; run pip install -e $sep_root with it"
    return 0
  fi
  wanted=$(cat "$sep_root/setup.py" "$sep_root/pyproject.toml" "$sep_root/egs/common/constraints.txt" |
    cksum)
  for marker in "$SEP_VENV/.sep-setup" "$SEP_VENV/.sep-setup-dev" \
    ${extra:+"$SEP_VENV/.sep-setup-$extra"}; do
    [ -n "$extra" ] && [ "$marker" = "$SEP_VENV/.sep-setup" ] && continue
    [ "$(cat "$marker" 2>/dev/null)" = "$sep_root $wanted" ] && break
    marker=
  done
  if [ -z "$marker" ]; then
    sep_setup "$extra"
    echo "$sep_root $wanted" >"$SEP_VENV/.sep-setup${extra:+-$extra}"
  fi
  export VIRTUAL_ENV=$SEP_VENV PATH=$SEP_VENV/bin:$PATH
  unset PYTHONHOME PYTHONDONTWRITEBYTECODE  # without byte code every program starts 5 s later
}

sep_environment
# Large tensors stay in glibc's heap between steps; given back and asked for again, they cost a sixth
# of a training step in page faults.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-1073741824}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-67108864}
