"""Stage 4: supervised training of the separator; also the control of stage 5.

Set up, train, save: `exp/<tag>/<out>/{best,last}` are model folders, `state.pt` beside them lets a
killed run go on. With `match` the run gets the training seconds of another run, which makes a
supervised continuation comparable with RL.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import encoders
from encoders import lite0
from sep import hub
from sep.backbone import BackboneUNet
from sep.data.bank import QueryBank, known
from sep.device import resolve
from sep.errors import ModelError, OptionError
from sep.model import QueryNet
from sep.program import guarded, say
from sep.recall import Recall
from sep.rl.reward import ClassHit
from sep.rl.videoseg import mechanisms
from sep.train import distributed
from sep.train.heatmap import heatmap_loss
from sep.train.loop import run
from sep.train.reflection import ReflectionOptions, ReflectiveTask
from sep.train.setup import TrainingSetup, prepare
from sep.train.supervised import SupervisedTask


def matched_seconds(folder: Path) -> float:
    """Training seconds of the finished run in `folder`, from its last model's provenance."""
    seconds = hub.read_config(folder / "last")["provenance"].get("train_seconds", 0.0)
    if not seconds > 0:
        raise ModelError(f"{folder / 'last'}: holds no training time to match")
    return seconds


def kind_of_task(cfg: DictConfig, setup: TrainingSetup) -> Callable[..., SupervisedTask]:
    """Supervised training, or with `reflect.pool` that of both passes of a reflective network."""
    if not cfg.reflect.pool:
        return SupervisedTask
    classes = ClassHit.by_text(setup.encoder, setup.sampler.bank.labels)
    return partial(ReflectiveTask, classes=classes, options=ReflectionOptions(**cfg.reflect))


def learned(start: str, encoder: Path) -> dict[str, Tensor]:
    """Weights that the way down of a backbone starts from: of the `encoder`, or of `pictures`."""
    if start == "encoder":
        return encoders.load(encoder).backbone.state_dict()
    if start == "pictures":
        return lite0.build(channels=1).state_dict()
    raise OptionError(f"start '{start}' is unknown; use encoder, pictures or null")


def remember(model: QueryNet, beta: float, setup: TrainingSetup) -> QueryNet:
    """The model with a memory of what the training clips are called and sound like.

    Raises:
        OptionError: beta below 0, or clips that stream from shards, of which no list is held.
    """
    if beta < 0:
        raise OptionError(f"recall={beta:g} must be 0 or more")
    if not isinstance(setup.queries, QueryBank):
        raise OptionError("recall needs all training queries at once; set tars=null or recall=0")
    queries = known(setup.queries)
    model = hub.extend(model, model.kind, recall={"count": len(queries), "beta": beta})
    model.recall.known.copy_(queries)
    return model


def train(cfg: DictConfig) -> None:
    """Build everything from the configuration and train."""
    torch.manual_seed(cfg.seed)
    names = ("exp", "data", "split", "seed", "batch", "samples", "bank_gb", "valid_mixtures")
    names += ("sources", "absent", "gain_db", "speed", "colour_db")
    names += ("tars", "tar_workers", "tar_buffer")
    options = {name: cfg[name] for name in names}
    setup = prepare(**options, scene=cfg.scene, threads=cfg.threads, device=resolve(cfg.device))
    if cfg.init:
        model = hub.from_pretrained(cfg.init, setup.device)
    else:
        settings = OmegaConf.to_container(cfg.model, resolve=True)
        model = QueryNet(**settings, embed_dim=setup.queries.dim)
        if cfg.start:
            if not isinstance(model.sound_net, BackboneUNet):
                raise OptionError(
                    f"start={cfg.start} needs a backbone; use model=lite0, or no start"
                )
            model.sound_net.load_backbone(learned(cfg.start, setup.encoder_folder))
        model.to(setup.device)
    if cfg.recall and not isinstance(model.recall, Recall):
        model = remember(model, cfg.recall, setup)
    if cfg.network:
        model = hub.extend(model, **OmegaConf.to_container(cfg.network, resolve=True))
    settings = {"trace": cfg.trace, "turns": cfg.turns}
    terms, _ = mechanisms(settings, model, setup.sampler.bank, setup.encoder.embed_text)
    terms += heatmap_loss(model, cfg.prior, cfg.target)
    distributed.share(model)
    whole = None
    if cfg.shard and distributed.world() > 1:
        whole = copy.deepcopy(model)
        distributed.shard(model, "maps")
    task = kind_of_task(cfg, setup)(
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
        terms=terms,
    )
    size = sum(p.numel() for p in model.parameters()) / 1e6
    bank = setup.sampler.bank
    say(
        f"{size:.2f} M parameters on {setup.device}, {distributed.world()} x {cfg.batch} mixtures "
        f"a step of {len(bank)} clips, {len(bank.labels)} labels"
    )
    folder = Path(cfg.exp) / cfg.out
    seconds = matched_seconds(Path(cfg.match)) if cfg.match else cfg.seconds or 0.0
    values = run(
        task,
        folder,
        steps=0 if seconds else cfg.steps,
        seconds=seconds,
        valid_every=cfg.valid_every,
        best_by=cfg.best_by,
        blend=cfg.blend,
        ema=cfg.ema,
        whole=whole,
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
