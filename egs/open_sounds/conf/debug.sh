# Tiny everything, to test the recipe.
prepare_conf=(--mixtures 4)
align_conf=(stages.audio.rank=1 --config-name align_debug)
pictures_conf=(pictures.steps=2 pictures.batch=4 pictures.side=64 pictures.rank=2
  pictures.settle_steps=2)
groups="all: {}"
assess_conf=(mixtures=4)
embed_conf=()
judge_conf=(--config-name judge_debug)
train_conf=(model=debug steps=4 batch=2 valid_every=2 valid_mixtures=2 sources=3 absent=0.4
  recall=7)
rl_conf=(rl.batch=2 rl.options.group_size=2 rl.options.replay_pool=1
  steps=2 valid_every=1 valid_mixtures=2)
control_conf=(sources=2 absent=0 gain_db=5)
separate_conf=(examples=2)
score_conf=(check=0 absent=true)
