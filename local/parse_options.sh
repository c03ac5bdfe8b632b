# shellcheck shell=bash
# Sourced by a script after it has set a variable for every option it takes. Kaldi's rules:
#   --foo-bar VALUE   sets $foo_bar, which must exist already; true and false stay true or false, and for such an option
#                     --foo-bar alone means true
#   --config FILE     reads settings from a shell file; what the command line says wins over it
#   --help            prints $help_message and ends the script
# Parsing stops at the first argument that is not an option: "$@" holds the rest.

option_fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

for ((option_index = 1; option_index <= $#; option_index++)); do
  if [ "${!option_index}" = --config ]; then
    option_next=$((option_index + 1))
    [ -r "${!option_next:-}" ] || option_fail "--config: there is no file '${!option_next:-}'"
    # shellcheck source=/dev/null
    . "${!option_next}"
  fi
done

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h)
      echo -e "${help_message:-No help is written for this script.}"
      exit 0
      ;;
    --config) shift 2 ;;
    --*=*) option_fail "write '${1%%=*} ${1#*=}' instead of '$1'" ;;
    --*)
      option_name=${1#--}
      option_name=${option_name//-/_}
      [[ $option_name =~ ^[a-z][a-z0-9_]*$ && -n ${!option_name+set} ]] ||
        option_fail "unknown option $1 (--help lists what there is)"
      if [[ ${!option_name} =~ ^(true|false)$ && ( $# -eq 1 || ${2-} == --* ) ]]; then
        set -- "$1" true "${@:2}"
      fi
      [[ $# -gt 1 && ${2-} != --* ]] || option_fail "option $1 needs a value"
      [[ ! ${!option_name} =~ ^(true|false)$ || $2 =~ ^(true|false)$ ]] ||
        option_fail "option $1 is true or false, not '$2'"
      printf -v "$option_name" %s "$2"
      shift 2
      ;;
    *) break ;;
  esac
done

for option_name in stage stop_stage; do
  [[ ${!option_name-0} =~ ^-?[0-9]+$ ]] ||
    option_fail "option --${option_name//_/-} is the number of a stage, not '${!option_name}' (--help lists them)"
done
