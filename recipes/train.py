"""Stage 4: supervised training of the separator; also the control of stage 5.

Set up, train, save: `exp/<tag>/<out>/{best,last}` are model folders, `state.pt` beside them lets a
killed run go on. With `match` the run gets the training seconds of another run, which makes a
supervised continuation comparable with RL.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import json
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from sep import hub
from sep.device import resolve
from sep.errors import ModelError
from sep.model import QueryNet
from sep.program import guarded, say
from sep.train import distributed
from sep.train.loop import run
from sep.train.setup import prepare
from sep.train.supervised import SupervisedTask


def matched_seconds(folder: Path) -> float:
    """Training seconds of the finished run in `folder`, from its last model's provenance."""
    seconds = hub.read_config(folder / "last")["provenance"].get("train_seconds", 0.0)
    if not seconds > 0:
        raise ModelError(f"{folder / 'last'}: holds no training time to match")
    return seconds


def train(cfg: DictConfig) -> None:
    """Build everything from the configuration and train."""
    torch.manual_seed(cfg.seed)
    names = ("exp", "data", "seed", "batch", "samples", "bank_gb", "valid_mixtures")
    names += ("gain_db", "speed", "colour_db")
    options = {name: cfg[name] for name in names}
    setup = prepare(**options, threads=cfg.threads, device=resolve(cfg.device))
    if cfg.init:
        model = hub.from_pretrained(cfg.init, setup.device)
    else:
        settings = OmegaConf.to_container(cfg.model, resolve=True)
        model = QueryNet(**settings, embed_dim=setup.queries.dim).to(setup.device)
    distributed.share(model)
    task = SupervisedTask(
        model,
        setup.sampler,
        setup.queries,
        setup.validation,
        lr=cfg.lr,
        weight_decay=cfg.weight_decay,
        warmup=cfg.warmup,
        target=cfg.target,
        si_sdr=cfg.si_sdr,
        mixed=cfg.mixed,
        negative=cfg.negative,
        grad_clip=cfg.grad_clip,
        train_norm=not cfg.init,
    )
    size = sum(p.numel() for p in model.parameters()) / 1e6
    bank = setup.sampler.bank
    say(
        f"{size:.2f} M parameters on {setup.device}, {distributed.world()} x {cfg.batch} mixtures "
        f"a step of {len(bank.ids)} clips, {len(bank.labels)} labels"
    )
    folder = Path(cfg.exp) / cfg.out
    values = run(
        task,
        folder,
        steps=0 if cfg.match else cfg.steps,
        seconds=matched_seconds(Path(cfg.match)) if cfg.match else 0.0,
        valid_every=cfg.valid_every,
        best_by=cfg.best_by,
        blend=cfg.blend,
        encoder=setup.encoder_folder,
        provenance={
            "stage": cfg.out,
            "seed": cfg.seed,
            "init": cfg.init,
            "labels": bank.labels,
        },
        say=say,
    )
    say(f"done: {json.dumps({k: round(v, 3) for k, v in values.items()})} -> {folder}")
    distributed.stop()


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    guarded(train, cfg)


if __name__ == "__main__":
    main()
