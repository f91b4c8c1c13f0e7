# Kaldi-style options, sourced after the variables of a run.sh, from the folder of that script:
#     stage=0       # first stage to run
#     full=false    # a switch: `--full` or `--full true`
#     . ../common/parse_options.sh "$@"
# `--name value` or `--name=value` sets such a variable; dashes and underscores are the same. The
# comment behind each variable is its help. `given_<name>` is set for each option that was given.
# `usage` (optional) is printed above the options by --help.

sep_options() {  # lines `name=default  # help` of the calling script, above the first `.` or `source`
  awk '/^(\.|source) / {exit} /^[a-z][a-z0-9_]*=[^#]*  # / {print}' "$(basename "${BASH_SOURCE[-1]}")"
}

sep_help() {
  [ -n "${usage:-}" ] && printf '%s\n\n' "$usage"
  echo "Options, with their defaults:"
  sep_options | while IFS= read -r sep_line; do
    sep_name=${sep_line%%=*}
    sep_default=${sep_line#*=}
    sep_default=${sep_default%%  # *}
    sep_default=$(eval "printf %s $sep_default")
    printf '  --%-12s %s (%s)\n' "${sep_name//_/-}" "${sep_line#*  # }" "${sep_default:-none}"
  done
}

sep_usage_error() {
  echo "error: $*; see $0 --help" >&2
  exit 2
}

sep_names=" $(sep_options | sed 's/=.*//' | tr '\n' ' ') "
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      sep_help
      exit 0
      ;;
    --*) ;;
    *) sep_usage_error "$1 is not an option" ;;
  esac
  sep_name=${1#--}
  sep_name=${sep_name%%=*}
  sep_name=${sep_name//-/_}
  case $sep_names in
    *" $sep_name "*) ;;
    *) sep_usage_error "unknown option ${1%%=*}" ;;
  esac
  if [ "$1" != "${1#*=}" ]; then
    sep_value=${1#*=}
  elif [ "${!sep_name}" = true ] || [ "${!sep_name}" = false ]; then
    case ${2:-} in
      true | false) sep_value=$2 && shift ;;
      *) sep_value=true ;;
    esac
  else
    [ $# -ge 2 ] && [ "${2#--}" = "$2" ] || sep_usage_error "$1 needs a value"
    sep_value=$2
    shift
  fi
  case ${!sep_name} in
    true | false)
      [ "$sep_value" = true ] || [ "$sep_value" = false ] ||
        sep_usage_error "--${sep_name//_/-} takes true or false, not $sep_value"
      ;;
    [0-9] | [0-9][0-9] | [0-9][0-9][0-9])
      [[ $sep_value =~ ^[0-9]+$ ]] ||
        sep_usage_error "--${sep_name//_/-} takes a whole number, not $sep_value"
      ;;
  esac
  printf -v "$sep_name" %s "$sep_value"
  printf -v "given_$sep_name" %s true
  shift
done
