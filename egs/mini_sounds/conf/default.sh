# What each program gets in the 15-minute run; the programs' own defaults are in recipes/conf.
prepare_conf=()
align_conf=()
judge_conf=()
embed_conf=()
train_conf=("model=$model")
rl_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md")
