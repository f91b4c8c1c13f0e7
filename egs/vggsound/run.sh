#!/usr/bin/env bash
# VGGSound: training on its clips, test on the fixed mixtures of VGGSound-clean+.
#   ./run.sh --vggsound ~/vggsound                    a folder of clips, or of tars with clips
#   ./run.sh --vggsound ~/vggsound --per-class 0      all clips train
#   ./run.sh --vggsound ~/vggsound --published best_model.pt --tag omnisep    OmniSep's checkpoint
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
vggsound=downloads/vggsound  # folder of clips or tars, or one tar; clips are called ID_000030.mp4
csv=downloads/vggsound.csv  # the list of VGGSound
clean=downloads/test-good.csv  # targets of the test mixtures, a list of CLIPSep or OmniSep, or ids
noise=downloads/test-no-music.csv  # their interferers; --noise= takes those of --clean
published=        # OmniSep's best_model.pt, tested with ImageBind in place of training
per_class=50      # training clips of a class; 0: all
tars=false        # stages 4 and 5 stream the training clips from tars, which stage 3 packs
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based separation on VGGSound, tested on VGGSound-clean+ as OmniSep and MARS-Sep are.

Stages: 0 download the lists, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised
separator, 5 fine-tuning by RL and its supervised control, 6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
lists=()  # those that stage 0 fetches
for name in vggsound csv clean noise published; do
  given=given_$name
  if [ -z "${!given:-}" ]; then
    [ "$name" = vggsound ] || [ "$name" = published ] || lists+=("$(basename "${!name}")")
  elif [ -n "${!name}" ]; then
    printf -v "$name" %s "$(cd "$OLDPWD" && realpath -- "${!name}")"
  fi
done

. ./path.sh
. ./cmd.sh
sep_extra=video
! $tars || sep_extra=video,shards
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data
size=default
! $debug || size=debug
. "conf/$size.sh"
. ../common/stages.sh
. ../common/recipe.sh
[ -z "$published" ] || test_published

prepare() {
  python local/prepare.py --vggsound "$vggsound" --csv "$csv" --clean "$clean" \
    ${noise:+--noise "$noise"} --per-class "$per_class" --data "$data" --nj "$nj" \
    "${prepare_conf[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

key=lists
[ ${#lists[@]} = 0 ] ||
  run_stage 0 "download the lists" "$done/0$(printf +%s "${lists[@]}")" "" \
    python local/download.py "${lists[@]}"
key="vggsound=$vggsound csv=$csv clean=$clean noise=$noise per_class=$per_class"
run_stage 1 "prepare data" "$data/.done" "$data/made.jsonl" prepare
key="model=$model rl=$rl seed=$seed published=$published tars=$tars $key size=$size"
encoder_stages
separator_stages
. ../common/coverage.sh
