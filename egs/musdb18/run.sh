#!/usr/bin/env bash
# MUSDB18: vocals, drums, bass and other out of songs, asked for by these words.
#   ./run.sh --musdb ~/musdb18hq                     MUSDB18-HQ or MUSDB18, as it is unpacked
#   ./run.sh --edition stems                         fetch MUSDB18 (5 GB) in place of HQ (23 GB)
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
musdb=downloads/musdb18  # MUSDB18 as it is published: train/ and test/
edition=hq        # what stage 0 fetches: hq (WAV) or stems (AAC)
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based separation on MUSDB18: four stems of whole songs, scored as SiSEC does.

Stages: 0 download, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised separator,
5 fine-tuning by RL and its supervised control, 6 separate the test songs, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
case $edition in hq | stems) ;; *) sep_usage_error "--edition takes hq or stems, not $edition" ;; esac
[ -z "${given_musdb:-}" ] || musdb=$(cd "$OLDPWD" && realpath -- "$musdb")

. ./path.sh
. ./cmd.sh
sep_extra=video  # an ffmpeg, for the songs in MP4
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data
size=default
! $debug || size=debug
. "conf/$size.sh"
. ../common/stages.sh
. ../common/recipe.sh

prepare() {
  python local/prepare.py --musdb "$musdb" --data "$data" --nj "$nj" "${prepare_conf[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

separate() {  # excerpts at 16 kHz for every score of the toolkit, then the whole songs
  run "$recipes/separate.py" "tag=$tag" "data=$data" "device=$device" "${separate_conf[@]}"
  run local/separate_songs.py --data "$data" --exp "$exp" --device "$device" "${songs_conf[@]}"
}

score() {
  run "$recipes/score.py" "tag=$tag" "data=$data" "device=$device" "${score_conf[@]}"
  run local/score_songs.py --data "$data" --exp "$exp" \
    --command "egs/musdb18/run.sh${args[*]:+ ${args[*]}}" "${sisec_conf[@]}"
}

key="musdb=$musdb"
[ -n "${given_musdb:-}" ] ||
  run_stage 0 "download" "downloads/.done" "" python local/download.py --edition "$edition"
run_stage 1 "prepare data" "$data/.done" "" prepare
key="model=$model rl=$rl seed=$seed data=$data size=$size"
encoder_stages
separator_stages

if [ "$stop_stage" -ge 7 ]; then
  ! $sep_skipped || cat "$exp/scores/songs.md"
  echo
  echo "scores and figures     $PWD/$exp/scores"
  echo "separated songs        $PWD/$exp/separated/songs"
  echo "sounds with pictures   $PWD/$exp/separated/examples"
  echo "your own song          $(command -v sep) separate FILE --text vocals" \
    "--model $PWD/$exp/rl/best"
fi
