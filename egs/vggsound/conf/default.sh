# What each program gets; the programs' own defaults are in recipes/conf.
prepare_conf=()
# From the weights that ship: they have heard no VGGSound. Longer stages than theirs, for 309 classes.
align_conf=(
  encoder.weights=shipped valid_every=500 bank_gb=8
  stages.text.steps=5000 stages.text.lr=1e-3 stages.text.text_lr=3e-4
  stages.audio.steps=500 stages.audio.lr=4e-4 stages.audio.rank=4
  stages.image.steps=1000 stages.image.lr=4e-4 stages.image.rank=4
)
judge_conf=(judge.steps=5000 bank_gb=8)  # a share of each class: 69 of about 500 hours
embed_conf=()
train_conf=("model=$model" steps=50000 batch=32 valid_every=2500 valid_mixtures=200 bank_gb=8)
shard_conf=()
rl_conf=(valid_mixtures=200 bank_gb=8)
control_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md" published=vggsound_clean)  # beside the paper's table
# with --published: as it was trained with, neither aligned further nor tuned
published_conf=(encoder=imagebind stages.text.steps=0 stages.audio.steps=0 stages.image.steps=0)
