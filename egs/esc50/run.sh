#!/usr/bin/env bash
# ESC-50: separation of environmental sounds, a fold or ten classes held out.
#   ./run.sh --esc50 ~/ESC-50-master                 fold 1 tests, 2 validates, 3 to 5 train
#   for n in 1 2 3 4 5; do ./run.sh --fold $n --tag fold$n; done
#   ./run.sh --zero-shot true --tag zero_shot        ten classes that never train
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run; given, that stage and the later ones run again
stop_stage=7      # last stage to run
tag=main          # name of the run: results go to exp/<tag>
esc50=downloads/ESC-50-master  # ESC-50 as it is published: audio/ and meta/esc50.csv
fold=1            # 1 to 5, the fold that tests; the next one validates, the others train
zero_shot=false   # ten classes of all folds test instead and never train
model=small       # separator: small, omnisep
rl=default        # fine-tuning: a file of recipes/conf/rl, such as default or marssep
device=auto       # auto, cpu, cuda
ngpu=1            # processes for training, one a GPU
nj=2              # processes for preparing data
seed=0            # of training; data and test mixtures do not depend on it
debug=false       # tiny networks and a few steps, to test the recipe
usage="Query-based separation on ESC-50: two clips of different classes at 0 dB.

Stages: 0 download, 1 prepare data, 2 align the encoder, 3 embed queries, 4 supervised separator,
5 fine-tuning by RL and its supervised control, 6 separate the test set, 7 score.
Finished stages are skipped. With --stage N, stage N and the later ones run again and replace
their results; an interrupted stage goes on from what it saved."
. ../common/parse_options.sh "$@"
[[ $fold =~ ^[1-5]$ ]] || sep_usage_error "--fold takes 1 to 5, not $fold"
[ -z "${given_esc50:-}" ] || esc50=$(cd "$OLDPWD" && realpath -- "$esc50")

. ./path.sh
. ./cmd.sh
. ../common/env.sh

exp=exp/$tag
logs=$exp/log
data=data/fold$fold
words=()
if $zero_shot; then
  data=data/zero_shot$fold
  words=(--zero-shot)
fi
size=default
! $debug || size=debug
. "conf/$size.sh"
samples=80000  # of a test mixture: whole clips of 5 s
separate_conf+=("samples=$samples")
score_conf+=("samples=$samples")
. ../common/stages.sh
. ../common/recipe.sh

prepare() {
  python local/prepare.py --esc50 "$esc50" --data "$data" --fold "$fold" "${words[@]}" --nj "$nj" \
    --test-samples "$samples" "${prepare_conf[@]}"
  python -m sep.data.kaldi "$data"/{train,valid,test}
}

key="esc50=$esc50"
[ -n "${given_esc50:-}" ] || run_stage 0 "download" "downloads/.done" "" python local/download.py
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
  echo "your own file          $(command -v sep) separate FILE --text 'the sound of rain'" \
    "--model $PWD/$exp/rl/best"
fi
