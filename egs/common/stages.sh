# Stages of a run.sh, sourced after its options. It reads: stage, stop_stage, given_stage, logs (the
# folder of the log files), key (the options that results depend on) and args (the command line).
#
#     run_stage N "title" DONE "old results" command arguments...
#
# A stage whose marker file DONE exists is skipped. The marker is written when the command has
# succeeded, so that an interrupted stage starts again and goes on from what it saved. With an
# explicit --stage N, stages from N on run again; their old results are deleted first. sep_skipped
# tells whether the last stage was skipped.

export PYTHONUNBUFFERED=1
sep_again=false
sep_skipped=false

log() {
  printf '%s %s\n' "$(date +%H:%M:%S)" "$*"
}

sep_interrupted() {
  trap - INT TERM
  log "interrupted in stage $sep_number; the same command without --stage goes on from there"
  exit 130
}

sep_resume() {  # the command line without --stage, with which finished stages are skipped
  local kept=() skip=false word
  for word in "${args[@]}"; do
    if $skip; then
      skip=false
    elif [ "$word" = --stage ]; then
      skip=true
    elif [ "${word#--stage=}" = "$word" ]; then
      kept+=("$(printf %q "$word")")
    fi
  done
  echo "$0${kept[*]:+ ${kept[*]}}"
}

run_stage() {
  sep_number=$1
  local title=$2 marker=$3 old=$4 began status file
  shift 4
  sep_skipped=true
  if [ "$sep_number" -lt "$stage" ] || [ "$sep_number" -gt "$stop_stage" ]; then
    return 0
  fi
  if [ -e "$marker" ]; then
    if [ "${given_stage:-}" = true ] || $sep_again; then
      sep_again=true
    elif [ "$(cat "$marker")" != "$key" ]; then
      echo "error: stage $sep_number was done with other options ($(cat "$marker"));" \
        "give another --tag, or --stage $sep_number to run it again" >&2
      exit 2
    else
      log "stage $sep_number: $title: done before, skipped"
      return 0
    fi
  fi
  if $sep_again; then
    for file in $old; do
      rm -rf "$file"
    done
  fi
  sep_skipped=false
  rm -f "$marker"
  mkdir -p "$logs" "$(dirname "$marker")"
  log "stage $sep_number: $title"
  began=$SECONDS
  trap sep_interrupted INT TERM
  set +e
  (set -e; "$@") 2>&1 | tee -i "$logs/$sep_number.log"
  status=${PIPESTATUS[0]}
  set -e
  trap - INT TERM
  [ "$status" -ne 130 ] || sep_interrupted
  if [ "$status" -ne 0 ]; then
    log "stage $sep_number failed (exit code $status): read $logs/$sep_number.log"
    log "then go on with: $(sep_resume)"
    exit 1
  fi
  echo "$key" >"$marker"
  echo $((SECONDS - began)) >"$logs/$sep_number.seconds"
  log "stage $sep_number took $((SECONDS - began)) s"
}
