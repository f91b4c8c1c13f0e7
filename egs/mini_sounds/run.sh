#!/usr/bin/env bash
# Query-based separation of real recordings, from download to a table of scores.
#   ./run.sh                                  everything, about 15 minutes on 2 CPU cores
#   ./run.sh --sounds ~/my_sounds --tag mine  your own recordings, one folder a class
#   ./run.sh --tag main --stage 5             RL, separation and scores again
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
sounds=           # a folder with one folder of recordings a class, instead of the download
full=false        # more packages (1 GB in all), more test mixtures, longer training
device=auto       # auto, cpu, cuda
ngpu=1            # GPUs for training
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based sound separation on real recordings: download, train, fine-tune, score.

Stages: 0 download, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised separator,
5 fine-tuning by RL and its supervised control, 6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
[ -z "$sounds" ] || sounds=$(cd "$OLDPWD" && realpath -- "$sounds")

. ./path.sh
. ./cmd.sh
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data
list=()
if [ -n "$sounds" ]; then
  data=data/sounds-$(basename "$sounds")-$(printf %s "$sounds" | cksum | cut -d' ' -f1)
elif $full; then
  data=data/full
  list=(--full)
fi
size=default
! $full || size=full
! $debug || size=debug
. "conf/$size.sh"
common=("tag=$tag" "data=$data" "device=$device" "seed=$seed")
. ../common/stages.sh

prepare() {
  python local/prepare.py --data "$data" --nj "$nj" "${list[@]}" "${prepare_conf[@]}" \
    ${sounds:+--sounds "$sounds"}
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

align() {  # side by side, as neither gains much from more than half of the cores
  local half=$((($(nproc) + 1) / 2))
  run "$recipes/judge.py" "${common[@]}" "threads=$half" "${judge_conf[@]}" &
  judge=$!  # not local: the trap outlives this function
  trap 'kill "$judge" 2>/dev/null || true' EXIT
  run "$recipes/align.py" "${common[@]}" "threads=$half" "${align_conf[@]}"
  wait "$judge"
}

tune() {  # both end where their time ends: no choice among checkpoints bends the comparison
  train "$recipes/rl.py" "${common[@]}" "rl=$rl" "${rl_conf[@]}" best_by=null
  train "$recipes/train.py" "${common[@]}" "${train_conf[@]}" out=control \
    "init=$exp/supervised/best" "match=$exp/rl" lr=2e-4 warmup=0.3 best_by=null blend=0.5
}

score() {
  local words="${args[*]}"
  run "$recipes/score.py" "tag=$tag" "data=$data" "device=$device" "${score_conf[@]}" \
    "command='egs/mini_sounds/run.sh${words:+ ${words//\'/}}'"
}

done=$exp/.done
key="data=$data"
[ -n "$sounds" ] || run_stage 0 "download" "downloads/.done$(printf %s "${list[@]}")" "" \
  python local/download.py "${list[@]}"
run_stage 1 "prepare data" "$data/.done" "" prepare
key="model=$model rl=$rl seed=$seed data=$data size=$size"
run_stage 2 "align the encoder, train the judge" "$done/2" "$exp/encoder $exp/judge" align
run_stage 3 "embed queries" "$done/3" "$exp/queries" \
  run "$recipes/embed.py" "tag=$tag" "data=$data" "device=$device" "${embed_conf[@]}"
run_stage 4 "train the separator" "$done/4" "$exp/supervised" \
  train "$recipes/train.py" "${common[@]}" "${train_conf[@]}"
run_stage 5 "fine-tune by RL, then its control" "$done/5" "$exp/rl $exp/control" tune
run_stage 6 "separate the test set" "$done/6" "$exp/separated" \
  run "$recipes/separate.py" "tag=$tag" "data=$data" "device=$device" "${separate_conf[@]}"
run_stage 7 "score" "$done/7" "$exp/scores" score

if [ "$stop_stage" -ge 7 ]; then
  ! $sep_skipped || cat "$exp/scores/table.md"
  echo
  echo "scores and figures     $PWD/$exp/scores"
  echo "separated sounds       $PWD/$exp/separated"
  echo "sounds with pictures   $PWD/$exp/separated/examples"
  echo "your own file          $(command -v sep) separate FILE --text 'a dog barking'" \
    "--model $PWD/$exp/rl/best"
fi
