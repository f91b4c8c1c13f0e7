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
ngpu=1            # processes for training, one a GPU
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
. ../common/stages.sh
. ../common/recipe.sh

prepare() {
  python local/prepare.py --data "$data" --nj "$nj" "${list[@]}" "${prepare_conf[@]}" \
    ${sounds:+--sounds "$sounds"}
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

key="data=$data"
[ -n "$sounds" ] || run_stage 0 "download" "downloads/.done$(printf %s "${list[@]}")" "" \
  python local/download.py "${list[@]}"
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
  echo "your own file          $(command -v sep) separate FILE --text 'a dog barking'" \
    "--model $PWD/$exp/rl/best"
fi
