# What each program gets; the programs' own defaults are in recipes/conf.
prepare_conf=()
mix=(bank_gb=20)  # all 50,000 clips, for whom --train-clips 0 fits
# From the start: the shipped encoder has heard no captions like these. No pictures, no stage.
align_conf=(
  "${mix[@]}" valid_every=500 align.stripes=0.15
  stages.text.steps=6000 stages.text.lr=1e-3
  stages.audio.steps=300 stages.audio.lr=4e-4 stages.audio.rank=4
  stages.image.steps=0
)
judge_conf=(judge.steps=1000 "${mix[@]}")
embed_conf=()
train_conf=("model=$model" steps=9000 valid_every=1000 valid_mixtures=200 "${mix[@]}")
rl_conf=(valid_mixtures=200 "${mix[@]}")
control_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md")
