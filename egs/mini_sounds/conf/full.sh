# Longer training for --full; best on a GPU.
align_conf=()
judge_conf=()
embed_conf=()
train_conf=("model=$model" steps=20000)
rl_conf=(steps=600)
separate_conf=()
score_conf=()
