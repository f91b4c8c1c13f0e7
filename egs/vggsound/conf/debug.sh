# Tiny everything, to test the recipe.
prepare_conf=(--valid-mixtures 4)
align_conf=(--config-name align_debug)
judge_conf=(--config-name judge_debug)
embed_conf=()
train_conf=(model=debug steps=4 batch=2 valid_every=2 valid_mixtures=2)
shard_conf=(clips=4)
rl_conf=(rl.batch=2 rl.options.group_size=2 rl.options.replay_pool=1
  steps=2 valid_every=1 valid_mixtures=2)
control_conf=()
separate_conf=(examples=2)
score_conf=(check=0 published=vggsound_clean)
published_conf=(encoder.weights=shipped stages.text.steps=0 stages.audio.steps=0 stages.image.steps=0 --config-name align_debug)
