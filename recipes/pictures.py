"""Teach a small encoder the pictures of a recipe's classes (part of stage 2).

Low-rank adapters of its picture backbone and a new picture head learn the training pictures
(`encoders.pictures`); embeddings of sounds and texts stay the same. The encoder, of the folder
`init` or the one that ships, goes to `exp/<tag>/<out>`, written once at the end; its log is
`exp/<tag>/log/<out>.csv`.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import os
import time
from dataclasses import asdict
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import encoders
from encoders.checkpoint import read_config
from encoders.pictures import PictureConfig, PictureTuner, accuracy
from encoders.preprocess import square_image
from encoders.registry import SHIPPED
from encoders.small import SmallEncoder
from sep.data.kaldi import DataDir
from sep.device import resolve
from sep.errors import OptionError
from sep.program import guarded, say

SIDE = 224  # pixels


def read(data: DataDir, classes: list[str], most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Up to `most` pictures (N, 3, 224, 224), uint8, of a split, and their class indices (N,)."""
    pairs = [(path, classes.index(label)) for path, label in data.pictures if label in classes]
    if len(pairs) > most:
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
        pairs = [pairs[k] for k in order[:most].tolist()]
    pictures = torch.empty(len(pairs), 3, SIDE, SIDE, dtype=torch.uint8)
    for place, (path, _) in zip(pictures, pairs, strict=True):
        place.copy_(square_image(path, SIDE).mul(255).round())
    return pictures, torch.tensor([label for _, label in pairs], dtype=torch.long)


def tune(cfg: DictConfig) -> None:
    """Read encoder and pictures, train, say how many held-out ones are named right, save."""
    if int(os.environ.get("RANK", 0)):  # one process is enough; under torchrun the others wait
        return
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    encoder = encoders.get("small", weights=cfg.init, device=resolve(cfg.device))
    assert isinstance(encoder, SmallEncoder)
    data, valid = (DataDir(Path(cfg.data) / split) for split in ("train", "valid"))
    classes = sorted({label for _, label in data.pictures})
    if len(classes) < 2:
        raise OptionError(f"{data.path}/pictures: {len(classes)} classes; it takes two or more")
    names = [f"the sound of {label}" for label in classes]
    seen, unseen = (read(d, classes, cfg.most, cfg.seed) for d in (data, valid))
    config = PictureConfig(**OmegaConf.to_container(cfg.pictures, resolve=True))
    texts = encoder.embed_text(names)
    before = accuracy(encoder, *unseen, texts)
    tuner = PictureTuner(encoder, *seen, names, config)
    say(f"pictures: {len(seen[1])} of {len(classes)} classes, {len(unseen[1])} to validate on")
    log = Path(cfg.exp) / "log" / f"{cfg.out}.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = spoke = time.monotonic()
    with log.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "seconds", "loss"])
        for step in range(1, config.steps + 1):
            loss, now = tuner.step(), time.monotonic()
            table.writerow([step, f"{now - began:.2f}", f"{loss:.6g}"])
            if now - spoke > 5 or step == config.steps:
                pace = (now - began) / step
                say(
                    f"pictures: step {step}/{config.steps}  loss {loss:.2f}  {pace:.2f} s/step  "
                    f"{pace * (config.steps - step):.0f} s to go"
                )
                spoke = now
    tuner.finish()
    if len(unseen[1]):
        after = accuracy(encoder, *unseen, texts)
        say(f"pictures: of the validation pictures {before:.3f} were named right, now {after:.3f}")
    source = SHIPPED / "small" if cfg.init == "shipped" else Path(cfg.init)
    provenance = read_config(source).get("provenance") or {}
    provenance["pictures"] = {"data": str(cfg.data), "pictures": len(seen[1]), **asdict(config)}
    encoder.save(Path(cfg.exp) / cfg.out, provenance)
    say(f"pictures: saved {cfg.exp}/{cfg.out} ({encoder.fingerprint})")


@hydra.main(version_base=None, config_path="conf", config_name="pictures")
def main(cfg: DictConfig) -> None:
    guarded(tune, cfg)


if __name__ == "__main__":
    main()
