# What each program gets in the 15-minute run; the programs' own defaults are in recipes/conf.
prepare_conf=()
align_conf=(  # from the weights that ship, which have heard the training split before
  encoder.weights=shipped
  stages.text.steps=60 stages.text.lr=3e-4 stages.text.text_lr=1e-4
  stages.audio.steps=25 stages.audio.lr=2e-4 stages.audio.rank=4
  stages.image.steps=40 stages.image.lr=3e-4 stages.image.rank=4
)
judge_conf=()
embed_conf=()
train_conf=("model=$model" recall=7)
rl_conf=()
control_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md")
