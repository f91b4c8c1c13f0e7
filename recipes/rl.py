"""Stage 5: fine-tune the separator by PPO on masks sampled from its Beta policy (MARS-Sep)."""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import json
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from sep import hub
from sep.device import resolve
from sep.program import guarded, say
from sep.rl.explore import BinExploration, TileExploration
from sep.rl.reward import Similarity, SiSdrGain, WeightedSum
from sep.rl.task import PolicyOptions, PolicyTask
from sep.train import distributed
from sep.train.loop import run
from sep.train.setup import prepare


def tune(cfg: DictConfig) -> None:
    """Build policy, reward and data from the configuration and fine-tune."""
    rl = OmegaConf.to_container(cfg.rl, resolve=True)
    names = ("exp", "data", "seed", "samples", "bank_gb", "valid_mixtures")
    names += ("gain_db", "speed", "colour_db")
    options = {name: cfg[name] for name in names}
    setup = prepare(**options, batch=rl["batch"], threads=cfg.threads, device=resolve(cfg.device))
    model = hub.from_pretrained(cfg.init, setup.device)
    shared = {name: cfg[name] for name in ("target", "si_sdr", "mixed", "negative")}
    policy = PolicyOptions(**rl["options"], **shared)
    embed = setup.encoder.embed_audio
    anchor = getattr(setup.encoder, "anchor", None)  # trained with the encoder, where it has one
    meaning = {**rl["similarity"], "anchor": anchor}
    parts = {"similarity": Similarity(embed, **meaning), "si_sdr": SiSdrGain()}
    reward = WeightedSum({k: (rl["reward"][k], part) for k, part in parts.items()})
    windows = None
    if policy.windowed:
        local = partial(embed, window_s=rl["windows"]["window_s"])
        windows = Similarity(local, **meaning, **rl["windows"])
    task = PolicyTask(
        model,
        setup.sampler,
        setup.queries,
        setup.validation,
        TileExploration(tuple(rl["tile"])) if rl["explore"] == "tile" else BinExploration(),
        reward,
        policy,
        windows,
        hub.from_pretrained(cfg.init, setup.device) if policy.kl_teacher else None,
    )
    say(
        f"{rl['batch']} mixtures x {policy.group_size} masks a rollout, {policy.inner_epochs} "
        f"updates each, exploration by {rl['explore']}, on {setup.device}"
    )
    folder = Path(cfg.exp) / cfg.out
    values = run(
        task,
        folder,
        steps=cfg.steps,
        valid_every=cfg.valid_every,
        best_by=cfg.best_by,
        blend=rl["blend"],
        encoder=setup.encoder_folder,
        provenance={"stage": cfg.out, "seed": cfg.seed, "init": str(cfg.init), "rl": rl},
        say=say,
    )
    say(f"done: {json.dumps({k: round(v, 3) for k, v in values.items()})} -> {folder}")
    distributed.stop()


@hydra.main(version_base=None, config_path="conf", config_name="rl")
def main(cfg: DictConfig) -> None:
    guarded(tune, cfg)


if __name__ == "__main__":
    main()
