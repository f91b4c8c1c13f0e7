"""Teach a small encoder the pictures of a recipe's classes (part of stages 2 and 3).

Low-rank adapters of its picture backbone and a new picture head learn the training pictures
(`encoders.pictures`); embeddings of sounds and texts stay the same. The encoder, of the folder
`init` or the one that ships, goes to `exp/<tag>/<out>`, written once at the end; its log is
`exp/<tag>/log/<out>.csv`. With `folds` no encoder is saved, but what encoders that learned from the
other folds make of each picture, for `recipes/embed.py`: `exp/<tag>/<out>.safetensors`.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor

import encoders
from encoders.checkpoint import read_config
from encoders.pictures import AT_ONCE, PictureConfig, PictureTuner, accuracy, share_out
from encoders.preprocess import square_image
from encoders.registry import SHIPPED
from encoders.small import SmallEncoder
from sep.data.kaldi import DataDir
from sep.device import resolve
from sep.errors import OptionError
from sep.program import Pace, guarded, say

SIDE = 224  # pixels
Pairs = list[tuple[str, int]]  # path and class index of each picture


def listed(data: DataDir, classes: list[str], most: int, seed: int) -> Pairs:
    """Up to `most` pictures of a split."""
    pairs = [(path, classes.index(label)) for path, label in data.pictures if label in classes]
    if len(pairs) > most:
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
        pairs = [pairs[k] for k in order[:most].tolist()]
    return pairs


def read(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, 224, 224), uint8, and their class indices (N,)."""
    pictures = torch.empty(len(pairs), 3, SIDE, SIDE, dtype=torch.uint8)
    for place, (path, _) in zip(pictures, pairs, strict=True):
        place.copy_(square_image(path, SIDE).mul(255).round())
    return pictures, torch.tensor([label for _, label in pairs], dtype=torch.long)


def learn(tuner: PictureTuner, name: str, log: Path) -> None:
    """Run all steps of a tuner; its losses go to the table `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    steps = tuner.config.steps
    pace = Pace(steps)
    with log.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "seconds", "loss"])
        for step in range(1, steps + 1):
            loss = tuner.step()
            table.writerow([step, f"{pace.seconds:.2f}", f"{loss:.6g}"])
            pace.tell(step, f"{name}: step {step}/{steps}  loss {loss:.2f}")
    tuner.finish()


def load(cfg: DictConfig) -> SmallEncoder:
    """The encoder that is tuned."""
    encoder = encoders.get("small", weights=cfg.init, device=resolve(cfg.device))
    assert isinstance(encoder, SmallEncoder)
    return encoder


def tune(cfg: DictConfig) -> None:
    """Read the pictures, then tune one encoder on all, or several without a part of them each."""
    if int(os.environ.get("RANK", 0)):  # one process is enough; under torchrun the others wait
        return
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    data = DataDir(Path(cfg.data) / "train")
    classes = sorted({label for _, label in data.pictures})
    if len(classes) < 2:
        raise OptionError(f"{data.path}/pictures: {len(classes)} classes; it takes two or more")
    names = [f"the sound of {label}" for label in classes]
    config = PictureConfig(**OmegaConf.to_container(cfg.pictures, resolve=True))
    (embed_unseen if cfg.folds else save_tuned)(cfg, data, classes, names, config)


def save_tuned(
    cfg: DictConfig, data: DataDir, classes: list[str], names: list[str], config: PictureConfig
) -> None:
    """Tune an encoder, say how many held-out pictures are named right, save it."""
    encoder = load(cfg)
    seen = read(listed(data, classes, cfg.most, cfg.seed))
    unseen = read(listed(DataDir(Path(cfg.data) / "valid"), classes, cfg.most, cfg.seed))
    texts = encoder.embed_text(names)
    before = accuracy(encoder, *unseen, texts)
    tuner = PictureTuner(encoder, *seen, names, config)
    say(f"pictures: {len(seen[1])} of {len(classes)} classes, {len(unseen[1])} to validate on")
    learn(tuner, "pictures", Path(cfg.exp) / "log" / f"{cfg.out}.csv")
    if len(unseen[1]):
        after = accuracy(encoder, *unseen, texts)
        say(f"pictures: of the validation pictures {before:.3f} were named right, now {after:.3f}")
    source = SHIPPED / "small" if cfg.init == "shipped" else Path(cfg.init)
    provenance = read_config(source).get("provenance") or {}
    provenance["pictures"] = {"data": str(cfg.data), "pictures": len(seen[1]), **asdict(config)}
    encoder.save(Path(cfg.exp) / cfg.out, provenance)
    say(f"pictures: saved {cfg.exp}/{cfg.out} ({encoder.fingerprint})")


def embed_unseen(
    cfg: DictConfig, data: DataDir, classes: list[str], names: list[str], config: PictureConfig
) -> None:
    """Embed each training picture by an encoder that did not learn from it, and save that.

    In use a separator meets pictures that its encoder has never seen. Those that it learned from
    lie much nearer to their names; a separator that trained with them trusts pictures too far.
    """
    pairs = listed(data, classes, cfg.most, cfg.seed)
    pictures, labels = read(pairs)
    fold = share_out(pictures, labels, cfg.folds, cfg.seed)
    others_show = [len(labels[fold != k].unique()) for k in range(cfg.folds)]
    if min(others_show) < 2 or len(fold.unique()) < cfg.folds:
        raise OptionError(f"folds={cfg.folds}: too few different pictures in {data.path}/pictures")
    of_fold = {path: int(k) for (path, _), k in zip(pairs, fold, strict=True)}
    paths = sorted({path for path, _ in data.pictures})
    vectors: dict[str, Tensor] = {}
    fingerprint, right = "", []
    for k in range(cfg.folds):
        encoder = load(cfg)
        fingerprint = encoder.fingerprint
        others = fold != k
        tuner = PictureTuner(encoder, pictures[others], labels[others], names, config)
        say(f"pictures: fold {k + 1} of {cfg.folds}, without {int((~others).sum())}")
        learn(tuner, f"fold {k + 1}", Path(cfg.exp) / "log" / f"{cfg.out}_{k + 1}.csv")
        mine = [path for path in paths if of_fold.get(path, 0) == k]  # 0: more than `most`
        for start in range(0, len(mine), AT_ONCE):
            some = mine[start : start + AT_ONCE]
            vectors.update(zip(some, encoder.embed_image(some).cpu(), strict=True))
        right.append(accuracy(encoder, pictures[~others], labels[~others], tuner.texts))
    tensors = {"image": torch.stack([vectors[path] for path in paths])}
    metadata = {"paths": json.dumps(paths), "encoder": fingerprint}
    path = Path(cfg.exp) / f"{cfg.out}.safetensors"
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata)
    os.replace(temporary, path)
    mean = sum(right) / len(right)
    say(f"pictures: {mean:.3f} are named right by encoders that had not seen them; saved {path}")


@hydra.main(version_base=None, config_path="conf", config_name="pictures")
def main(cfg: DictConfig) -> None:
    guarded(tune, cfg)


if __name__ == "__main__":
    main()
