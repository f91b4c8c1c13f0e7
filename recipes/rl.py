"""Stage 5: fine-tune the separator by PPO on masks sampled from its Beta policy (MARS-Sep)."""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from encoders import Encoder
from encoders.judge import Judge
from sep import hub
from sep.device import resolve
from sep.errors import DataError, OptionError
from sep.program import guarded, say
from sep.rl.distill import Distillation, freeze_head
from sep.rl.explore import named
from sep.rl.hacking import Watch
from sep.rl.options import PolicyOptions
from sep.rl.reward import (
    ClassHit,
    ClassSimilarity,
    LevelGuard,
    MaskIoU,
    MaskOverlap,
    Similarity,
    SiSdrGain,
    WeightedSum,
)
from sep.rl.task import PolicyTask
from sep.rl.videoseg import mechanisms
from sep.train import distributed
from sep.train.heatmap import heatmap_loss
from sep.train.loop import run
from sep.train.setup import prepare


def critic(
    exp: Path, labels: list[str], device: torch.device
) -> tuple[Callable[[Tensor, int], Tensor], Tensor]:
    """What the classifier in `exp/critic` hears, and its vector of each class (C, D).

    Raises:
        DataError: there is none, or it is the held-out judge, which is never a reward.
    """
    if not (exp / "critic").is_dir():
        raise DataError(
            f"{exp / 'critic'}: missing; train it: recipes/judge.py exp={exp} out=critic seed=100"
        )
    known, judge = Judge.load(exp / "critic").to(device), Judge.load(exp / "judge").to(device)
    if torch.equal(known.class_vectors, judge.class_vectors):
        raise DataError(f"{exp / 'critic'}: is the held-out judge; train it with another seed")
    for label in set(labels) - set(known.labels):
        raise DataError(f"{exp / 'critic'}: does not know '{label}'; train it on this data")
    known.requires_grad_(False)
    return known.hear, known.vectors[[known.index[label] for label in labels]]


def rewards(
    rl: dict[str, Any], encoder: Encoder, labels: list[str], exp: Path
) -> tuple[WeightedSum, Similarity | None]:
    """The reward, and the similarity by windows where `rl.windows` says how long they are.

    A part with weight 0 is left out. `rl.rewards` adds parts of one's own: by name, `weight` and
    `_target_`, the dotted path of a class (or factory) whose instances map a
    `sep.rl.reward.Rollout` to (B, G); other entries are its arguments.
    """
    embed = encoder.embed_audio
    anchor = getattr(encoder, "anchor", None)  # trained with the encoder, where it has one
    meaning = {**rl["similarity"], "anchor": anchor}
    device = next(encoder.parameters()).device
    known = {
        "similarity": lambda: Similarity(embed, **meaning),
        "si_sdr": SiSdrGain,
        "iou": MaskIoU,
        "overlap": MaskOverlap,
        "level": LevelGuard,
        "class": lambda: ClassHit.by_text(encoder, labels),
        "critic": lambda: ClassSimilarity(*critic(exp, labels, device)),
        "hit": lambda: ClassHit(*critic(exp, labels, device)),
    }
    for name in rl["reward"].keys() - known.keys():
        raise OptionError(f"reward '{name}' is unknown; use {', '.join(known)}, or rl.rewards")
    parts = {name: (weight, known[name]()) for name, weight in rl["reward"].items() if weight}
    for name, own in (rl.get("rewards") or {}).items():
        own = dict(own)
        weight = own.pop("weight", 1.0)
        try:
            parts[name] = (weight, instantiate(own))
        except InstantiationException as error:
            reason = str(error).strip().splitlines()[0]
            raise OptionError(f"rl.rewards.{name}: {reason}") from None
    if not parts:
        raise OptionError("every part of the reward has weight 0; give one of them a weight")
    windows = None
    if rl.get("windows"):
        local = partial(embed, window_s=rl["windows"]["window_s"])
        windows = Similarity(local, **meaning, **rl["windows"])
    return WeightedSum(parts), windows


def tune(cfg: DictConfig) -> None:
    """Build policy, reward and data from the configuration and fine-tune."""
    rl = OmegaConf.to_container(cfg.rl, resolve=True)
    names = ("exp", "data", "split", "seed", "samples", "bank_gb", "valid_mixtures")
    names += ("sources", "absent", "gain_db", "speed", "colour_db")
    names += ("tars", "tar_workers", "tar_buffer")
    options = {name: cfg[name] for name in names}
    options |= {"scene": cfg.scene, "batch": rl["batch"], "threads": cfg.threads}
    setup = prepare(**options, device=resolve(cfg.device))
    torch.manual_seed(cfg.seed)
    model = hub.from_pretrained(cfg.init, setup.device)
    if rl.get("network"):
        model = hub.extend(model, **rl["network"])
    if rl["freeze_head"]:
        freeze_head(model, hub.from_pretrained(cfg.init, setup.device), rl["freeze_head"])
    shared = {name: cfg[name] for name in ("target", "si_sdr", "mixed", "negative")}
    policy = PolicyOptions(**rl["options"], **shared)
    if policy.replay and cfg.steps <= policy.replay_pool:
        raise OptionError(
            f"no mixture comes again in {cfg.steps} rollouts; lower rl.options.replay_pool"
        )
    if policy.replay and cfg.tars:
        raise OptionError(
            "replay needs clips that come again; set rl.options.replay=0 or tars=null"
        )
    reward, windows = rewards(rl, setup.encoder, setup.sampler.bank.labels, Path(cfg.exp))
    bank, embed_text = setup.sampler.bank, setup.encoder.embed_text
    terms, concentration = mechanisms(rl, model, bank, embed_text, reward)
    terms += heatmap_loss(model, rl["prior"], cfg.target)
    if rl["distill"]["weight"]:
        terms.append(Distillation(hub.from_pretrained(cfg.init, setup.device), **rl["distill"]))
    task = PolicyTask(
        model,
        setup.sampler,
        setup.queries,
        setup.validation,
        named(rl["explore"], **{k: rl[k] for k in ("tile", "grid") if rl.get(k)}),
        reward,
        policy,
        windows if policy.windowed else None,
        copy.deepcopy(model).eval().requires_grad_(False) if policy.kl_teacher else None,
        terms,
        concentration,
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
        watch=Watch(**rl["watch"]) if rl["watch"] else None,
        encoder=setup.encoder_folder,
        provenance={
            "stage": cfg.out,
            "seed": cfg.seed,
            "init": str(cfg.init),
            "labels": setup.sampler.bank.labels,
            "rl": rl,
        },
        say=say,
    )
    say(f"done: {json.dumps({k: round(v, 3) for k, v in values.items()})} -> {folder}")
    distributed.stop()


@hydra.main(version_base=None, config_path="conf", config_name="rl")
def main(cfg: DictConfig) -> None:
    guarded(tune, cfg)


if __name__ == "__main__":
    main()
