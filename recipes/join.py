"""Several trained separators as one, whose mask logits are the mean of theirs."""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sep import hub
from sep.errors import ModelError, OptionError
from sep.joined import mean_of
from sep.program import guarded, say


def join(cfg: DictConfig) -> None:
    """Read the best model of each run, write their mean as that of another run."""
    exp, runs = Path(cfg.exp), list(cfg.models)
    if len(runs) < 2:
        raise OptionError("models: name two runs or more, such as models=[net1,net2]")
    folders = [exp / run / "best" for run in runs]
    made = [hub.read_config(folder) for folder in folders]
    if any(config.get("encoder") != made[0].get("encoder") for config in made):
        raise ModelError(f"{', '.join(runs)}: take queries of different encoders")
    model = mean_of([hub.from_pretrained(folder) for folder in folders])
    provenances = [config.get("provenance") or {} for config in made]
    kept = {
        "stage": cfg.out,
        "joined": [
            {k: p.get(k) for k in ("seed", "step", "train_seconds", "si_sdri")} for p in provenances
        ],
        "train_seconds": round(sum(p.get("train_seconds") or 0.0 for p in provenances), 1),
        "labels": provenances[0].get("labels"),
    }
    folder = exp / cfg.out / "best"
    hub.save_pretrained(model, folder, folders[0] / "encoder", kept)
    say(f"{len(runs)} separators as one: {json.dumps(kept['joined'])} -> {folder}")


@hydra.main(version_base=None, config_path="conf", config_name="join")
def main(cfg: DictConfig) -> None:
    guarded(join, cfg)


if __name__ == "__main__":
    main()
