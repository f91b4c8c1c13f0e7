# What each program gets; the programs' own defaults are in recipes/conf.
prepare_conf=()
# From the weights that ship, which have heard orchestral notes but no video of MUSIC.
align_conf=(
  encoder.weights=shipped valid_every=250
  stages.text.steps=1000 stages.text.lr=5e-4 stages.text.text_lr=2e-4
  stages.audio.steps=200 stages.audio.lr=4e-4 stages.audio.rank=4
  stages.image.steps=300 stages.image.lr=4e-4 stages.image.rank=4
)
judge_conf=(judge.steps=1000)
embed_conf=()
train_conf=("model=$model" steps=9000 valid_every=1000 valid_mixtures=200 bank_gb=4)
rl_conf=(valid_mixtures=200 bank_gb=4)
control_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md")
[ -z "$vggsound" ] || score_conf+=(published=music_clean)  # beside the paper's table
# with --published: as it was trained with, neither aligned further nor tuned
published_conf=(encoder=imagebind stages.text.steps=0 stages.audio.steps=0 stages.image.steps=0)
