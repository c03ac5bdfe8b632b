# shellcheck shell=bash
# say_command ARGUMENT...: the command as result rows say it, without the paths of this machine, quoted where it must be.
say_command() {
  local said=./run.sh word previous=
  for word in "$@"; do
    case $word in
      /*) [[ $previous != --* ]] || word=$(tr a-z- A-Z_ <<< "${previous#--}") ;;
      hf:/*) word=hf:$(tr a-z- A-Z_ <<< "${previous#--}") ;;
      *) [[ $previous != --corpus ]] || word=CORPUS ;;
    esac
    if [ "$word" != --dir ] && [ "$previous" != --dir ]; then
      [[ $word == *" "* || -z $word ]] && said+=" \"$word\"" || said+=" $word"
    fi
    previous=$word
  done
  echo "$said"
}
