# What each program gets; the programs' own defaults are in recipes/conf.
prepare_conf=()
# Text first and long: few recordings a class want many cuts and mixtures. Ranking comes after, as it
# halves the variety of the mixtures.
align_conf=(
  wordings=local/wordings.tsv valid_every=500 align.stripes=0.15
  stages.text.steps=3000 stages.text.lr=1e-3
  stages.audio.steps=300 stages.audio.lr=4e-4 stages.audio.rank=4
  stages.image.steps=400 stages.image.lr=4e-4 stages.image.rank=4
)
pictures_conf=()
esc10="chainsaw, clock tick, crackling fire, crying baby, dog, helicopter, rain, rooster, sea waves, sneezing"
groups="ESC-10: {prefix: esc-, classes: [$esc10]}, ESC-50: {prefix: esc-}, orchestra: {prefix: phil-}"
assess_conf=(mixtures=256)
embed_conf=(wordings=local/wordings.tsv)
judge_conf=(judge.steps=1000)
# up to three sources, some absent, at levels far apart, in rooms, bands and noise, beside their kin;
# few recordings a class want to be played in many ways, also two at once
scene="{room: 0.1, band: 0.15, noise: 0.3, loudness_db: 6, family: 0.2, company: 0.3}"
train_conf=(
  "model=$model" steps=5000 valid_every=500 valid_mixtures=200
  sources=3 absent=0.4 gain_db=10 speed=0.2 colour_db=5 "scene=$scene" recall=7
)
[ "$model" != lite0 ] || train_conf+=(start=pictures lr=1e-3)  # ImageNet's backbone
# the mixtures of training, so that what is absent stays silent, but as they come from the recordings
rl_conf=(valid_mixtures=200 sources=3 absent=0.4 gain_db=10)
[ "$rl" != critic ] || rl_conf+=(steps=48 rl.blend=0.5)
control_conf=("scene={room: 0, band: 0, noise: 0, loudness_db: 0, family: 0, company: 0}" speed=0.1 colour_db=3)
separate_conf=()
score_conf=("results=$exp/RESULTS.md" absent=true)
