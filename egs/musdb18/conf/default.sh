# What each program gets; the programs' own defaults are in recipes/conf.
prepare_conf=()
align_conf=(  # from the weights that ship, which have heard instruments and no song of MUSDB18
  encoder.weights=shipped
  stages.text.steps=300 stages.text.lr=3e-4 stages.text.text_lr=1e-4
  stages.audio.steps=100 stages.audio.lr=2e-4 stages.audio.rank=4
  stages.image.steps=0
)
judge_conf=()
embed_conf=()
mix=(sources=4 bank_gb=4)  # a stem each of four songs; all chunks at once in memory
train_conf=("model=$model" steps=9000 valid_every=1000 valid_mixtures=200 "${mix[@]}")
rl_conf=(valid_mixtures=200 "${mix[@]}")
control_conf=()
separate_conf=()
score_conf=()
songs_conf=()  # of local/separate_songs.py
sisec_conf=()  # of local/score_songs.py
