# The last words of a run.sh that tests on a fixed list, sourced at its end. It reads: stop_stage,
# sep_skipped, exp, data. What of the list was there (data/coverage.md) goes below the scores.

if [ "$stop_stage" -ge 7 ]; then
  for page in "$exp/scores/table.md" "$exp/RESULTS.md"; do
    $sep_skipped || [ ! -f "$page" ] || cat "$data/coverage.md" >>"$page"
  done
  if $sep_skipped; then
    cat "$exp/scores/table.md"
  else
    cat "$data/coverage.md"
  fi
  echo
  echo "scores and figures     $PWD/$exp/scores"
  echo "separated sounds       $PWD/$exp/separated"
  echo "sounds with pictures   $PWD/$exp/separated/examples"
  echo "what was missing       $PWD/$data/faults.txt, $PWD/$data/classes.tsv"
fi
