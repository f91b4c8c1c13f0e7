#!/usr/bin/env bash
# The encoder and the separator that ship with the toolkit, from open recordings, and their scores.
#   ./run.sh --esc50 ~/ESC-50-master --philharmonia ~/philharmonia
#   ./run.sh --esc50 ~/ESC-50-master --final true --tag final --encoder shipped
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
esc50=            # ESC-50 as it is published, or a part of it with a meta.tsv
philharmonia=     # single notes of instruments with a meta.tsv
mini=../mini_sounds/data  # data directories of mini_sounds, made if missing; --mini= leaves it out
final=false       # train on what esc50 and philharmonia validate, too
tune=             # share of the training recordings that only stage 5 hears, such as 0.34
encoder=align     # align: train it here; shipped: take the one that ships
model=lite0       # separator: lite0, small, omnisep
nets=2            # separators that are trained, with other seeds, and joined
rl=critic         # fine-tuning: a file of recipes/conf/rl, such as critic, default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; the data do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="The shipped models on open recordings: ESC-50, orchestral notes, mini_sounds.

Stages: 0 download, 1 prepare data, 2 align the encoder and assess every stage of it, 3 embed queries
and train the judge, 4 supervised separator, 5 fine-tuning by RL and its supervised control,
6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
for name in esc50 philharmonia mini; do
  [ -z "${!name}" ] || [ "${!name}" = ../mini_sounds/data ] ||
    printf -v "$name" %s "$(cd "$OLDPWD" && realpath -- "${!name}")"
done

. ./path.sh
. ./cmd.sh
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data
! $final || data=data/final
size=default
! $debug || size=debug
. "conf/$size.sh"
. ../common/stages.sh
. ../common/recipe.sh
splits=(train valid test)
if [ -n "$tune" ]; then
  splits+=(tune)
  rl_conf+=(split=tune)
  control_conf+=(split=tune)
fi

download() {
  [ -z "$mini" ] || [ -d "$mini/train" ] || ../mini_sounds/run.sh --stop-stage 1
  python local/packages.py
}

prepare() {
  local words=(--data "$data" --nj "$nj")
  [ ! -d downloads/unpacked ] || words+=(--unpacked downloads/unpacked)
  [ -z "$mini" ] || words+=(--mini "$mini")
  [ -z "$esc50" ] || words+=(--esc50 "$esc50")
  [ -z "$philharmonia" ] || words+=(--philharmonia "$philharmonia")
  ! $final || words+=(--final)
  [ -z "$tune" ] || words+=(--tune "$tune")
  words+=("${prepare_conf[@]}")
  python local/prepare.py "${words[@]}"
  python -m sep.data.kaldi "${splits[@]/#/$data/}"
}

align() {
  if [ "$encoder" = shipped ]; then
    mkdir -p "$exp/encoder"
    cp "$root"/encoders/weights/small/{config.json,model.safetensors} "$exp/encoder"
    return
  fi
  run "$recipes/align.py" "${common[@]}" keep_stages=true "${align_conf[@]}"
  local name encoders=
  for name in start text audio image; do
    encoders+="${encoders:+, }$name: $exp/stages/$name"
  done
  if [ -s "$data/train/pictures" ]; then
    run "$recipes/pictures.py" "${common[@]}" "init=$exp/stages/image" "${pictures_conf[@]}"
    encoders+=", pictures: $exp/encoder"
  fi
  run "$recipes/assess.py" "tag=$tag" "data=$data" split=test gallery=train "device=$device" \
    "encoders={$encoders}" "groups={$groups}" "${assess_conf[@]}"
}

listen() {
  if [ -s "$data/train/pictures" ]; then
    run "$recipes/pictures.py" "${common[@]}" "init=$exp/encoder" folds=3 out=unseen "${pictures_conf[@]}"
    embed_conf+=("unseen=$exp/unseen.safetensors")
  fi
  run "$recipes/embed.py" "tag=$tag" "data=$data" "device=$device" "splits=[$(IFS=,; echo "${splits[*]}")]" \
    "${embed_conf[@]}"
  judges
  run "$recipes/judge.py" "${common[@]}" out=referee split=test "seed=$((seed + 200))" "${judge_conf[@]}"
}

key="mini=$mini"
run_stage 0 "download" "downloads/.done" "" download
key="$key esc50=$esc50 philharmonia=$philharmonia final=$final tune=$tune"
run_stage 1 "prepare data" "$data/.done" "" prepare
key="$key seed=$seed size=$size encoder=$encoder"
run_stage 2 "align the encoder" "$done/2" "$exp/encoder $exp/stages $exp/assess" align
run_stage 3 "embed queries, train the judge" "$done/3" \
  "$exp/unseen.safetensors $exp/queries $exp/judge $exp/critic $exp/referee" listen
key="$key model=$model nets=$nets rl=$rl"
separator_stages

if [ "$stop_stage" -ge 7 ]; then
  ! $sep_skipped || cat "$exp/scores/table.md"
  echo
  echo "the encoder            $PWD/$exp/encoder"
  echo "the separator          $PWD/$exp/rl/best"
  echo "scores and figures     $PWD/$exp/scores"
fi
