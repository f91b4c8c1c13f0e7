#!/usr/bin/env bash
# AudioCaps: sounds asked for by captions, two clips at 0 dB.
#   ./run.sh --audio ~/audiocaps/wav                 tables and AudioSep's list are fetched
#   ./run.sh --audio ~/audiocaps/wav --captions all --tag all    AudioSep's whole test
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
audio=downloads/audio  # recordings, at any depth: YOUTUBE_ID.wav, YOUTUBE_ID_START.wav, ...
tables=downloads  # train.csv, val.csv and test.csv of AudioCaps
pairs=auto        # AudioSep's audiocaps_eval.csv; auto: of the tables' folder, if there; none
captions=first    # of a test clip: first, or all (AudioSep's test; 40 GB of memory)
train_clips=6000  # training clips, drawn evenly over kinds of sound; 0: all (16 GB, and 64 in stage 2)
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based separation on AudioCaps: two clips at 0 dB, asked for by captions.

Stages: 0 download, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised separator,
5 fine-tuning by RL and its supervised control, 6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
case $captions in first | all) ;; *) sep_usage_error "--captions takes first or all, not $captions" ;; esac
[ -z "${given_audio:-}" ] || audio=$(cd "$OLDPWD" && realpath -- "$audio")
[ -z "${given_tables:-}" ] || tables=$(cd "$OLDPWD" && realpath -- "$tables")
case $pairs in
  none | auto) ;;
  *) pairs=$(cd "$OLDPWD" && realpath -- "$pairs") ;;
esac

. ./path.sh
. ./cmd.sh
sep_extra=video  # an ffmpeg, for recordings in M4A, WebM and the like
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data/$captions
size=default
! $debug || size=debug
. "conf/$size.sh"
samples=160000  # of a test mixture: whole clips of 10 s
separate_conf+=("samples=$samples")
score_conf+=("samples=$samples")
. ../common/stages.sh
. ../common/recipe.sh

prepare() {
  local list=$pairs words=()
  [ "$list" != auto ] || list=$tables/audiocaps_eval.csv
  if [ "$pairs" != none ] && { [ "$pairs" != auto ] || [ -e "$list" ]; }; then
    words=(--pairs "$list")
  fi
  python local/prepare.py --tables "$tables" --audio "$audio" --data "$data" --nj "$nj" \
    --captions "$captions" --train-clips "$train_clips" --test-samples "$samples" \
    "${words[@]}" "${prepare_conf[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

key="tables=$tables"
[ -n "${given_tables:-}" ] || run_stage 0 "download" "downloads/.done" "" python local/download.py
key="tables=$tables audio=$audio pairs=$pairs train_clips=$train_clips"
run_stage 1 "prepare data" "$data/.done" "" prepare
key="model=$model rl=$rl seed=$seed data=$data size=$size"
encoder_stages
separator_stages

if [ "$stop_stage" -ge 7 ]; then
  ! $sep_skipped || cat "$exp/scores/table.md"
  echo
  echo "scores and figures     $PWD/$exp/scores"
  echo "separated sounds       $PWD/$exp/separated"
  echo "sounds with pictures   $PWD/$exp/separated/examples"
  echo "your own file          $(command -v sep) separate FILE --text 'a dog barks while rain falls'" \
    "--model $PWD/$exp/rl/best"
fi
