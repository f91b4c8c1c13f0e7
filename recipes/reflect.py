"""What a second pass is worth: pass 2 against pass 1 on the fixed mixtures of a split.

The class of a sound is what the query encoder hears (`sep.metrics.passes`). Writes
`exp/<tag>/<out>/`: table.md, summary.json and per_clip.csv.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import json
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

import encoders
from sep import hub
from sep.device import resolve
from sep.errors import DataError, OptionError
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.passes import compare, markdown, summarise
from sep.networks.reflect import ReflectiveNet
from sep.program import guarded, say
from sep.rl.reward import ClassHit


def reflect(cfg: DictConfig) -> None:
    """Compare the passes of one model on one split and write what was found."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    exp, device = Path(cfg.exp), resolve(cfg.device)
    model = hub.from_pretrained(cfg.separator, device)
    if not isinstance(model, ReflectiveNet):
        raise OptionError(f"{cfg.separator}: has one pass; train it with network={{kind: reflect}}")
    clips = EvaluationSet(cfg.data, cfg.split, exp / "queries")
    query, has = clips.queries(cfg.query)
    if not has.any():
        raise DataError(f"{cfg.data}/{cfg.split}: no mixture has a query of kind {cfg.query}")
    labels = sorted({label for m in clips.mixtures for label in (m.label, *m.interferer_labels)})
    label = torch.tensor([labels.index(name) for name in clips.labels])
    classes = ClassHit.by_text(encoders.load(exp / "encoder", device=device), labels)
    values = compare(
        model, clips.sources[has], query[has], label[has], classes, iou=cfg.iou, batch=cfg.batch
    )
    of = [name for name, there in zip(clips.recordings, has.tolist(), strict=True) if there]
    found = summarise(values, cfg.harm_db, of)
    folder = exp / cfg.out
    folder.mkdir(parents=True, exist_ok=True)
    ids = [name for name, there in zip(clips.ids, has.tolist(), strict=True) if there]
    write_csv(folder / "per_clip.csv", ids, values)
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = markdown(found, cfg.harm_db)
    (folder / "table.md").write_text(table, encoding="utf-8")
    print(table)
    say(f"reflect: wrote {folder}/table.md, summary.json and per_clip.csv")


def write_csv(path: Path, ids: list[str], values: dict[str, Tensor]) -> None:
    """One line a mixture."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["mixture", *values])
        columns = [value.tolist() for value in values.values()]
        writer.writerows(zip(ids, *columns, strict=True))


@hydra.main(version_base=None, config_path="conf", config_name="reflect")
def main(cfg: DictConfig) -> None:
    guarded(reflect, cfg)


if __name__ == "__main__":
    main()
