# Tiny everything, to test the recipe.
prepare_conf=(--mixtures 4)
align_conf=(--config-name align_debug)
judge_conf=(--config-name judge_debug)
embed_conf=()
train_conf=(model=debug steps=4 batch=2 valid_every=2 valid_mixtures=2)
rl_conf=(rl.batch=2 rl.options.group_size=2 rl.options.replay_pool=1
  steps=2 valid_every=1 valid_mixtures=2)
control_conf=()
separate_conf=(examples=2)
score_conf=(check=0)
