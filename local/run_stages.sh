# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by a recipe after options.sh and its own variables, with the recipe's arguments: the stages that all recipes share.
# $recipe is its folder; it may define get_corpus, its stage 0, with options of its own in $recipe/options.sh, of which $paths names
# those that are files or folders. What a stage does is in asrcompress/recipe; each skips what is done already.
# shellcheck source=local/path.sh
. "$(dirname "${BASH_SOURCE[0]}")/path.sh"

options_file=$repo_root/local/options.sh

# The options of a file with the recipe's own defaults, and the file's comments.
list_options() {
  local line name value
  while IFS= read -r line; do
    if [[ $line =~ ^([a-z][a-z0-9_]*)=[^#]*(\#.*)?$ ]]; then
      name=${BASH_REMATCH[1]}
      value=${!name}
      [[ $value == *" "* || -z $value ]] && value="\"$value\""
      printf '  --%s %s  %s\n' "${name//_/-}" "$value" "${BASH_REMATCH[2]}"
    elif [[ $line == " "* ]]; then
      echo "      $line"
    fi
  done < "$1"
}

help_message="usage: ./run.sh [--OPTION VALUE ...]\n
$(! [ -f "$recipe/options.sh" ] || list_options "$recipe/options.sh")
$(list_options "$options_file")\n
stages: 0 corpus, 1 features, 2 lang, 3 graphs, 4 dense model, 5 controls, 6 compression, 7 decoding,
        8 device files, 9 decoding in sherpa-onnx, 10 report"
# shellcheck source=local/say_command.sh
. "$repo_root/local/say_command.sh"
command=$(say_command "$@")
# shellcheck source=local/parse_options.sh
. "$repo_root/local/parse_options.sh"
fetch=${corpus:+false}
for name in corpus dense_model dense_init reference ${paths-}; do  # files and folders are named from where the user stands
  [ -z "${!name}" ] || printf -v "$name" %s "$(realpath -m "${!name}")"
done
corpus=${corpus:-data/corpus}
mkdir -p "${dir:=$recipe}"
cd "$dir" || exit

# run_recipe STAGE...: stages, with every option that concerns Python.
run_recipe() {
  local name words=()
  for name in $(sed -n 's/^\([a-z_]*\)=.*/\1/p' "$options_file") command; do
    case $name in stage | stop_stage | dir) ;; *) words+=("--${name//_/-}=${!name}") ;; esac
  done
  "$PYTHON" -m asrcompress.cli recipe "$@" "${words[@]}"
}
between() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
declare -F get_corpus > /dev/null || get_corpus() { run_recipe download; }

[ "$dry_run" = false ] || [ "$stage" -ge 4 ] || stage=4  # a dry run prints what these stages would do, and does nothing
if between 0 && [ "$fetch" != false ]; then  # with --corpus there is nothing to fetch
  get_corpus
fi
if between 1; then  # lhotse manifests and log-mel features, three speeds for training
  run_recipe prepare
fi
if between 2; then  # tokens, lexicon, words; and a trigram of the training text where the corpus brings none
  run_recipe lang
fi
if between 3; then  # HLG of every search, G of one that rescores
  run_recipe graph
fi
sweep=()  # stages 4 to 7 are one graph of jobs for a launcher
if between 4; then  # the dense model
  sweep+=(train-dense)
fi
if between 5; then  # models trained from scratch to stand beside the compressed ones
  sweep+=(train-controls)
fi
if between 6; then  # every method at every size, compressed after training, during it, or trained small from scratch
  sweep+=(compress)
fi
if between 7; then  # greedy and every search of the corpus over the packed file of every model
  sweep+=(decode)
fi
[ "${#sweep[@]}" = 0 ] || run_recipe "${sweep[@]}"
[ "$dry_run" = false ] || exit 0
if between 8; then  # ONNX files that agree with torch, and what they cost in their runtimes
  run_recipe export-devices
fi
if between 9; then  # greedy and HLG in sherpa-onnx, and k2's search over the posteriors of the same file
  run_recipe decode-devices
fi
if between 10; then  # RESULTS.md, tables, the plot, and results.html to explore
  run_recipe report
fi
