"""Train the held-out judge (part of stage 2) on a split of the recipe's data.

It shares no weights, front end, loss or augmentation with the query encoder, and no training
signal of the separator ever comes from it. Written once at the end to `exp/<tag>/judge`; its log is
`exp/<tag>/log/judge.csv`. With `out=critic` and another seed it trains a critic instead, a part of
the reward (`rl.reward.critic`); with `out=referee split=test` one that scores beside the judge and
has heard none of the recordings that encoder, separator and judge were trained on.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import os
from dataclasses import asdict
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from encoders.bank import ClipBank
from encoders.judge import Judge
from encoders.judging import JudgeConfig, JudgeTrainer, accuracy
from sep.data.kaldi import DataDir, held
from sep.device import resolve
from sep.program import Pace, guarded, say


def read_bank(data: DataDir, classes: list[str], device: torch.device | str) -> ClipBank:
    """Decode a whole split to memory."""
    labels = [data.label[i] for i in data.ids]
    paths = [data.wav[i] for i in data.ids]
    return ClipBank.read(paths, labels, Judge.sample_rate, classes, device)


def train(cfg: DictConfig) -> None:
    """Build everything from the configuration, train, validate, save."""
    if int(os.environ.get("RANK", 0)):  # one process is enough; under torchrun the others wait
        return
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = resolve(cfg.device)
    room = Judge.sample_rate, cfg.bank_gb, cfg.seed, say
    data, valid = (held(Path(cfg.data) / split, *room) for split in (cfg.split, "valid"))
    classes = sorted(set(data.label.values()) | set(valid.label.values()))
    config = JudgeConfig(**OmegaConf.to_container(cfg.judge), seed=JudgeConfig.seed + cfg.seed)
    trainer = JudgeTrainer(read_bank(data, classes, device), config, device)
    valid_bank = read_bank(valid, classes, device)
    log = Path(cfg.exp) / "log" / f"{cfg.out}.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    pace, steps = Pace(config.steps), config.steps
    scores: dict[str, float] = {}
    with log.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "seconds", "loss", "lr"])
        for step in range(1, steps + 1):
            row = trainer.step()
            seconds = f"{pace.seconds:.2f}"
            table.writerow([step, seconds, f"{row['loss']:.6g}", f"{row['lr']:.6g}"])
            pace.tell(step, f"judge: step {step}/{steps}  loss {row['loss']:.2f}")
            if step % cfg.valid_every == 0 or step == steps:
                scores = accuracy(trainer.judge.eval(), valid_bank)
                say("judge: valid " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    provenance = {"data": str(cfg.data), "split": cfg.split, "valid": scores, **asdict(config)}
    trainer.judge.save(Path(cfg.exp) / cfg.out, provenance)
    say(f"judge: saved {cfg.exp}/{cfg.out}")


@hydra.main(version_base=None, config_path="conf", config_name="judge")
def main(cfg: DictConfig) -> None:
    guarded(train, cfg)


if __name__ == "__main__":
    main()
