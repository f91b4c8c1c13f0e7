#!/usr/bin/env bash
# Alignment of the encoder that ships with the toolkit, from open recordings, and its scores.
#   ./run.sh --esc50 ~/ESC-50-master --philharmonia ~/philharmonia
#   ./run.sh --esc50 ~/ESC-50-master --final true --tag final
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=3      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
esc50=            # ESC-50 as it is published, or a part of it with a meta.tsv
philharmonia=     # single notes of instruments with a meta.tsv
mini=../mini_sounds/data  # data directories of mini_sounds, made if missing; --mini= leaves it out
final=false       # train on what esc50 and philharmonia validate, too
device=auto       # auto, cpu, cuda
nj=2              # processes for preparing data
seed=0            # of training; the data do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Alignment of the shipped encoder on open recordings: ESC-50, orchestral notes, mini_sounds.

Stages: 0 download, 1 prepare data, 2 align the encoder, 3 assess every stage on the test split.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results."
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

download() {
  [ -z "$mini" ] || [ -d "$mini/train" ] || ../mini_sounds/run.sh --stop-stage 1
  python local/pictures.py
}

prepare() {
  local words=(--data "$data" --nj "$nj")
  [ ! -d downloads/unpacked ] || words+=(--unpacked downloads/unpacked)
  [ -z "$mini" ] || words+=(--mini "$mini")
  [ -z "$esc50" ] || words+=(--esc50 "$esc50")
  [ -z "$philharmonia" ] || words+=(--philharmonia "$philharmonia")
  ! $final || words+=(--final)
  python local/prepare.py "${words[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

align() {
  run "$recipes/align.py" "tag=$tag" "data=$data" "device=$device" "seed=$seed" keep_stages=true \
    "${align_conf[@]}"
}

assess() {
  local name encoders=
  for name in start text audio image; do
    [ ! -d "$exp/stages/$name" ] || encoders+="${encoders:+, }$name: $exp/stages/$name"
  done
  run "$recipes/assess.py" "tag=$tag" "data=$data" split=test gallery=train "device=$device" \
    "encoders={$encoders}" "groups={$groups}" "${assess_conf[@]}"
}

done=$exp/.done
key="mini=$mini"
run_stage 0 "download" "downloads/.done" "" download
key="$key esc50=$esc50 philharmonia=$philharmonia final=$final"
run_stage 1 "prepare data" "$data/.done" "" prepare
key="$key seed=$seed size=$size"
run_stage 2 "align the encoder" "$done/2" "$exp/encoder $exp/stages" align
run_stage 3 "assess" "$done/3" "$exp/assess" assess

if [ "$stop_stage" -ge 3 ]; then
  ! $sep_skipped || cat "$exp/assess/table.md"
  echo
  echo "the encoder            $PWD/$exp/encoder"
  echo "scores and figure      $PWD/$exp/assess"
fi
