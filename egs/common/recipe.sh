# What the run.sh of every data set does alike, sourced behind stages.sh. It reads: exp, data, tag,
# device, seed, rl, nets, recipes, args, the arrays of conf/*.sh, and the functions of cmd.sh. Where rl_conf
# and train_conf differ in the mixtures they draw, control_conf gives the control those of RL.
# test_published also reads published and published_conf; with tars=true, shard_conf is read.

common=("tag=$tag" "data=$data" "device=$device" "seed=$seed")
done=$exp/.done

judges() {  # the judge that is held out; with --rl critic also the critic that the reward hears
  run "$recipes/judge.py" "${common[@]}" "$@" "${judge_conf[@]}"
  [ "$rl" != critic ] ||
    run "$recipes/judge.py" "${common[@]}" "$@" out=critic "seed=$((seed + 100))" "${judge_conf[@]}"
}

align_and_judge() {  # side by side, as neither gains much from more than half of the cores
  local half=$(((${cores:-$(nproc)} + 1) / 2))
  judges "threads=$half" &
  judge=$!  # not local: the trap outlives this function
  trap 'kill "$judge" 2>/dev/null || true' EXIT
  run "$recipes/align.py" "${common[@]}" "threads=$half" "${align_conf[@]}"
  wait "$judge"
}

supervise() {  # with nets above 1 as many, with other seeds, joined
  local k runs=
  if [ "${nets:-1}" -le 1 ]; then
    train "$recipes/train.py" "${common[@]}" "${train_conf[@]}"
    return
  fi
  for k in $(seq "$nets"); do
    train "$recipes/train.py" "${common[@]}" "${train_conf[@]}" "out=net$k" "seed=$((seed + k - 1))"
    runs+="${runs:+,}net$k"
  done
  run "$recipes/join.py" "tag=$tag" "models=[$runs]"
}

tune() {  # both end where their time ends: no choice among checkpoints bends the comparison
  train "$recipes/rl.py" "${common[@]}" "rl=$rl" "${rl_conf[@]}" best_by=null
  train "$recipes/train.py" "${common[@]}" "${train_conf[@]}" out=control \
    "${control_conf[@]}" "init=$exp/supervised/best" "match=$exp/rl" lr=2e-4 warmup=0.3 \
    best_by=null blend=0.5
}

test_published() {  # $published, OmniSep's checkpoint, and the encoder it takes, in place of training
  [ -f "$published" ] || sep_usage_error "--published: $published is no file"
  align_conf=("${published_conf[@]}")
  separate_conf+=("systems=[omnisep]")
  score_conf+=("systems=[omnisep]" "pairs=[]")
  supervise() {
    run -m sep.cli import-checkpoint "$published" --format omnisep -o "$exp/omnisep/best" --overwrite
  }
  tune() { log "a published checkpoint is tested as it is"; }
}

separate() {
  run "$recipes/separate.py" "tag=$tag" "data=$data" "device=$device" "${separate_conf[@]}"
}

score() {
  local words="${args[*]}"
  run "$recipes/score.py" "tag=$tag" "data=$data" "device=$device" "${score_conf[@]}" \
    "command='egs/$(basename "$PWD")/run.sh${words:+ ${words//\'/}}'"
}

embed() {  # with --tars also packs what training streams then
  run "$recipes/embed.py" "tag=$tag" "data=$data" "device=$device" "${embed_conf[@]}"
  [ "${tars:-false}" = false ] || run "$recipes/shard.py" "tag=$tag" "data=$data" "${shard_conf[@]}"
}

if [ "${tars:-false}" = true ]; then
  train_conf+=("tars=$exp/tars/train")
  rl_conf+=("tars=$exp/tars/train")
fi

encoder_stages() {  # 2 and 3
  run_stage 2 "align the encoder, train the judge" "$done/2" \
    "$exp/encoder $exp/judge $exp/critic" align_and_judge
  run_stage 3 "embed queries" "$done/3" "$exp/queries $exp/tars" embed
}

separator_stages() {  # 4 to 7
  run_stage 4 "train the separator" "$done/4" "$exp/supervised $exp/net* $exp/omnisep" supervise
  run_stage 5 "fine-tune by RL, then its control" "$done/5" "$exp/rl $exp/control" tune
  run_stage 6 "separate the test set" "$done/6" "$exp/separated" separate
  run_stage 7 "score" "$done/7" "$exp/scores" score
}
