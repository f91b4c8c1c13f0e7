# Longer training for --full; best on a GPU.
prepare_conf=()
# from the start: the shipped encoder has heard some of what this list's split tests on
align_conf=(stages.text.steps=2000 stages.audio.steps=500 stages.image.steps=500)
judge_conf=(judge.steps=3000)
embed_conf=()
train_conf=("model=$model" steps=20000)
rl_conf=(steps=600)
control_conf=()
separate_conf=()
score_conf=("results=$exp/RESULTS.md")
