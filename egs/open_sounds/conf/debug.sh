# Tiny everything, to test the recipe.
align_conf=(stages.audio.rank=1 --config-name align_debug)
groups="all: {}"
assess_conf=(mixtures=4)
