#!/usr/bin/env bash
# MUSIC solos: training on instruments, test on the fixed mixtures of MUSIC-clean+.
#   ./run.sh --music ~/music --vggsound ~/vggsound    test solos mixed with clips of VGGSound-clean+
#   ./run.sh --music ~/music --test=                  test solos mixed with each other
#   ./run.sh --music ~/music --vggsound ~/vggsound --tag borrowed --trained ../vggsound/exp/main
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
music=downloads/music  # folder of the solos: videos, sounds or frames, called by YouTube id
list=downloads/MUSIC21_solo_videos.json  # their list as it is published
test=downloads/test.csv  # the test solos, a list of CLIPSep or OmniSep, or ids; --test= every tenth
vggsound=         # folder of clips or tars that interferers come from; without, other test solos
noise=downloads/test-good-no-music.csv  # list of these clips
published=        # OmniSep's best_model.pt, tested with ImageBind in place of training
trained=          # exp/<tag> of another recipe whose models are tested here instead of training
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based separation on MUSIC, tested on MUSIC-clean+ as OmniSep and MARS-Sep are.

Stages: 0 download the lists, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised
separator, 5 fine-tuning by RL and its supervised control, 6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
lists=()  # those that stage 0 fetches
for name in music list test vggsound noise published trained; do
  given=given_$name
  if [ -n "${!given:-}" ]; then
    [ -z "${!name}" ] || printf -v "$name" %s "$(cd "$OLDPWD" && realpath -- "${!name}")"
  elif [ "$name" = list ] || [ "$name" = test ] || { [ "$name" = noise ] && [ -n "$vggsound" ]; }; then
    lists+=("$(basename "${!name}")")
  fi
done

. ./path.sh
. ./cmd.sh
sep_extra=video
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data
[ -n "$vggsound" ] || data=data/each_other
size=default
! $debug || size=debug
. "conf/$size.sh"
. ../common/stages.sh
. ../common/recipe.sh

prepare() {
  python local/prepare.py --music "$music" --list "$list" ${test:+--test "$test"} \
    ${vggsound:+--vggsound "$vggsound" --noise "$noise"} --data "$data" --nj "$nj" \
    "${prepare_conf[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

borrow() {
  local name
  for name in encoder judge supervised rl control; do
    [ ! -d "$trained/$name" ] || ln -sfn "$trained/$name" "$exp/$name"
  done
}

[ -z "$published" ] || [ -z "$trained" ] || sep_usage_error "--published and --trained exclude each other"
[ -z "$published" ] || test_published
if [ -n "$trained" ]; then  # what stages 2, 4 and 5 do then
  [ -d "$trained/encoder" ] || sep_usage_error "--trained: $trained has no encoder"
  align_and_judge() { borrow; }
  train() { borrow; }
fi

key=lists
[ ${#lists[@]} = 0 ] ||
  run_stage 0 "download the lists" "$done/0$(printf +%s "${lists[@]}")" "" \
    python local/download.py "${lists[@]}"
key="music=$music list=$list test=$test vggsound=$vggsound ${vggsound:+noise=$noise}"
run_stage 1 "prepare data" "$data/.done" "$data/made.jsonl" prepare
key="model=$model rl=$rl seed=$seed trained=$trained published=$published $key size=$size"
encoder_stages
separator_stages
. ../common/coverage.sh
