"""Fine-tune with every setting and several seeds, score all on the same mixtures, write the table.

Each row of the grid is a run of recipes/rl.py; each is compared with a supervised continuation
(recipes/train.py) of at least the same training time, and with the row `base`, which scored as many
masks. Runs and scores that exist are kept.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import rl as policy_recipe
import torch
import train as supervised_recipe
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import encoders
from encoders.judge import Judge
from sep import hub
from sep.candidates import variants
from sep.device import resolve
from sep.errors import OptionError
from sep.metrics import ablation, baselines, figures, report, results, semantic, system
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.sisdr import si_sdr_improvement
from sep.model import QueryNet
from sep.program import guarded, say

NOTE = """\
Each row less its control, a supervised continuation of at least the same training time, on {count}
fixed mixtures of the {split} split; training seeds {seeds}, each clip's value the mean over them;
95 % bootstrap intervals over the recordings of targets. Every run scores {masks} masks, sampled
ones and those that a gradient of the reward goes through (BCE alone: as many mixtures). The gap is
that of the held-out similarity between the true target and the mixture, {gap:.4f}. Seeds: standard
deviations of the seeds' means, similarity and dB. Encoder: similarity by the encoder that gives the
reward; where it rises and the held-out one does not, the reward is being hacked. Level: of the
output. Start: the model that a row and its control were both trained on from. {out}/curves.png
draws the validation, {out}/trade.png meaning against signal.
"""
EFFICIENCY = """\
Masks to base's: how many a row had scored when its validation ({valid} mixtures, the mean over
seeds) first was where that of `base` ends; 0 where it was from the start.
"""
MEASURES = {  # of validation, as they are shown
    "similarity": "encoder similarity",
    "held_out": "held-out similarity",
    "si_sdri": "SI-SDRi dB",
}
COMMANDS = """\
Made by `{made}`.

Each row and its control were trained by these commands, here for seed {seed}. For the other seeds
`seed` and the end of `out` differ, and `seconds` where their run took another time.
"""
BLENDED = """\
Of every row, not of the controls, {count} candidates are blended by what the encoder hears in each.
"""
REFINED = """\
The queries of all, of rows and controls, are refined by what they find (`sep.feedback`).
"""


class Listener:
    """Scores models on the fixed mixtures of a split."""

    def __init__(self, cfg: DictConfig):
        self.cfg, self.device, exp = cfg, resolve(cfg.device), Path(cfg.exp)
        self.clips = EvaluationSet(cfg.data, cfg.split, exp / "queries", cfg.mixtures)
        self.judge = Judge.load(exp / "judge").to(self.device)
        self.encoder = encoders.load(exp / "encoder", device=self.device)

    def hear(self, waves: Tensor, index: list[int], rate: int) -> dict[str, Tensor]:
        """SI-SDRi and held-out similarity of waves (n, N) for the mixtures `index`, (n,) each."""
        reference, mixture = self.clips.sources[index, 0], self.clips.mixture[index]
        labels = [self.clips.labels[i] for i in index]
        judged = semantic.judge_scores(self.judge, waves.to(self.device), rate, labels)
        return {
            "si_sdri": si_sdr_improvement(waves, reference, mixture),
            "judge_similarity": judged["judge_similarity"].cpu(),
            "level_db": 10 * torch.log10(waves.square().sum(-1) / mixture.square().sum(-1)),
        }

    @torch.inference_mode()
    def score(self, model: QueryNet, candidates: int) -> list[dict[str, Any]]:
        """Rows of every mixture under every kind of query, of so many masks blended."""
        clips, rows = self.clips, []
        found = {kind: clips.queries(kind) for kind in self.cfg.queries}
        vectors = torch.stack([v for v, _ in found.values()], 1)  # (n, Q, D)
        parts = [
            self.separate(model, mixture.to(self.device), query.to(self.device), candidates).cpu()
            for mixture, query in zip(
                clips.mixture.split(self.cfg.batch), vectors.split(self.cfg.batch), strict=True
            )
        ]
        estimates = torch.cat(parts)  # (n, Q, N)
        for q, (kind, (_, has)) in enumerate(found.items()):
            index = has.nonzero()[:, 0].tolist()
            if not index:
                continue
            waves = estimates[index, q]
            values = self.hear(waves, index, model.sample_rate)
            if kind == "text":
                heard = semantic.embed(self.encoder, waves.to(self.device), model.sample_rate)
                values["encoder_similarity"] = (heard.cpu() * vectors[index, q]).sum(-1)
            rows += self.rows(index, kind, values)
        return rows

    def separate(self, model: QueryNet, mixture: Tensor, query: Tensor, candidates: int) -> Tensor:
        """Targets (B, Q, N) of mixtures (B, N) and queries (B, Q, D)."""
        if candidates == 1:
            ear = self.encoder if self.cfg.refine else None
            return system.estimates(model, ear, mixture, query)
        nothing = mixture[:0]
        cases = (
            baselines.Case(mixture, nothing, one, nothing, model, self.encoder)
            for one in query.unbind(1)
        )
        return torch.stack([baselines.blended(case, candidates) for case in cases], 1)

    @torch.inference_mode()
    def gap(self) -> float:
        """Held-out similarity of the true targets less that of the mixtures, the mean."""
        everyone, rate = list(range(len(self.clips))), self.encoder.sample_rate
        target, mixture = (
            self.hear(waves, everyone, rate)["judge_similarity"]
            for waves in (self.clips.sources[:, 0], self.clips.mixture)
        )
        return float((target - mixture).nanmean())

    def rows(self, index: list[int], query: str, values: dict[str, Tensor]) -> list[dict[str, Any]]:
        return [
            {"id": self.clips.ids[i], "system": "model", "query": query}
            | {name: float(column[k]) for name, column in values.items()}
            for k, i in enumerate(index)
        ]


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a scores file."""
    names = ("id", "system", "query")
    with path.open(newline="") as file:
        return [
            {k: v if k in names else float(v) for k, v in row.items() if v}
            for row in csv.DictReader(file)
        ]


def scored(
    folder: Path, listener: Listener, candidates: int = 1, model: Path | None = None
) -> list[dict[str, Any]]:
    """Rows of the model of a run, or of another `model`; scored first where that is missing."""
    name = f"scores_{listener.cfg.split}_{len(listener.clips)}"
    how = f"_{candidates}" if candidates > 1 else "_refined" if listener.cfg.refine else ""
    path = folder / f"{name}{how}.csv"
    with alone(folder):
        if not path.exists():
            net = hub.from_pretrained(model or folder / "last", listener.device)
            report.write_csv(path, listener.score(net, candidates))
    recording = dict(zip(listener.clips.ids, listener.clips.recordings, strict=True))
    return [row | {"recording": recording[row["id"]]} for row in read(path)]


def settings(cfg: DictConfig, name: str, seed: int) -> tuple[DictConfig, int]:
    """The configuration of recipes/rl.py for a row and a seed, and the masks that a step scores.

    Those are the sampled ones, and what every update scores beside them for a gradient of its own.
    """
    own = hydra.compose("rl", overrides(cfg, name, seed))
    options, turns = own.rl.options, own.rl.turns
    drawn = options.group_size if options.surrogate or (own.rl.calibrate or {}).get("emit") else 0
    each = bool(options.pathwise) + bool(options.direct) + (turns.get("group", 4) if turns else 0)
    masks = own.rl.batch * (drawn + options.inner_epochs * each or options.group_size)
    own.steps = max(1, cfg.masks // masks)
    own.valid_every = max(1, own.steps // cfg.points)
    own.out = str(Path(cfg.out).relative_to(cfg.exp) / slug(name) / str(seed))
    return own, masks


def overrides(cfg: DictConfig, name: str, seed: int) -> list[str]:
    """Those of recipes/rl.py for a row and a seed, but for its length and folder."""
    return [*shared(cfg, seed), "best_by=null", *cfg.grid[name], *cfg.common, "rl.watch=null"]


def shared(cfg: DictConfig, seed: int) -> list[str]:
    """Overrides that every run gets."""
    names = ("tag", "exp", "data", "init", "device", "threads", "valid_mixtures")
    words = [f"{name}={'null' if cfg[name] is None else cfg[name]}" for name in names]
    return [*words, f"seed={seed}"]


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def continued(cfg: DictConfig, seconds: float, own: DictConfig) -> list[str]:
    """Overrides of recipes/train.py for the control of a run that trained for so long.

    It starts from the same model, and keeps as much of it (`blend`).
    """
    steps = max(0, math.ceil(math.log(seconds / cfg.shortest_s) / math.log(cfg.rung) - 1e-9))
    length = cfg.shortest_s * cfg.rung**steps
    words = [word for word in shared(cfg, own.seed) if not word.startswith("init=")]
    words += [*cfg.control, f"init={own.init}", f"blend={own.rl.blend}"]
    words += [f"seconds={length:.3f}", "best_by=null", "valid_every=1000000"]
    name = f"{length:.1f}s_{own.rl.blend:g}_{slug(str(own.init))[-24:]}"
    out = Path(cfg.out).relative_to(cfg.exp) / "control" / name / str(own.seed)
    return [*words, f"out={out}"]


def control(words: list[str]) -> Path:
    """Folder of a control; trained first where missing."""
    return done(hydra.compose("train", words), supervised_recipe.train)


def tuned(cfg: DictConfig, name: str, own: DictConfig) -> Path:
    """Folder of the run of a row; trained first where missing."""
    say(f"{name}, seed {own.seed}: {own.steps} rollouts")
    return done(own, policy_recipe.tune)


def done(own: DictConfig, program: Callable[[DictConfig], None]) -> Path:
    """Folder of a run, made unless it is there; one process makes it while others wait.

    Raises:
        OptionError: it is there, but was made with other settings.
    """
    folder, settings = Path(own.exp) / own.out, OmegaConf.to_yaml(own, resolve=True)
    known = folder / "settings.yaml"
    with alone(folder):
        if known.exists() and known.read_text() != settings:
            raise OptionError(
                f"{folder}: was run with other settings; remove it or give another out"
            )
        if not (folder / "finished").exists():
            report.write_text(known, settings)
            program(own)
            (folder / "finished").touch()
    return folder


def alone(folder: Path) -> FileLock:
    """Keeps other processes out of a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def rows_done(cfg: DictConfig, listener: Listener) -> dict[str, ablation.Row]:
    """Train and score what is missing; rows by name, with the commands of the first seed."""
    names = list(cfg.rows or cfg.grid)
    for name in names:
        if name not in cfg.grid:
            raise OptionError(f"row '{name}' is unknown; use {', '.join(cfg.grid)}")
    rows = {name: ablation.Row(settings(cfg, name, 0)[1]) for name in names}
    for seed in cfg.seeds:
        for name, row in rows.items():
            own, _ = settings(cfg, name, seed)
            folder = tuned(cfg, name, own)
            row.folders.append(folder)
            row.seconds.append(supervised_recipe.matched_seconds(folder))
            row.scores.append(scored(folder, listener, cfg.candidates))
            words = continued(cfg, row.seconds[-1], own)
            beside = control(words)
            row.control_seconds.append(supervised_recipe.matched_seconds(beside))
            row.control_scores.append(scored(beside, listener))
            if not row.commands:
                start = Path(cfg.out) / "start" / slug(str(own.init))
                row.start = scored(start, listener, model=Path(own.init))
                tuning = [*overrides(cfg, name, seed), f"steps={own.steps}"]
                tuning += [f"valid_every={own.valid_every}", f"out={own.out}"]
                row.commands = [command("rl", tuning), command("train", words)]
    return rows


def command(program: str, words: list[str]) -> str:
    """What to type for a program of recipes."""
    return shlex.join(["python", f"recipes/{program}.py", *words])


def run(cfg: DictConfig) -> None:
    """Train, score, compare, write."""
    variants(cfg.candidates)  # refuses a wrong number before anything is trained
    if cfg.refine and cfg.candidates > 1:
        raise OptionError("refine=true: candidates are not refined here; leave candidates=1")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    listener, out = Listener(cfg), Path(cfg.out)
    rows = rows_done(cfg, listener)
    gap = listener.gap()
    note = NOTE.format(
        count=len(listener.clips),
        split=cfg.split,
        seeds=", ".join(map(str, cfg.seeds)),
        masks=cfg.masks,
        gap=gap,
        out=out,
    )
    if cfg.candidates > 1:
        note += BLENDED.format(count=cfg.candidates)
    if cfg.refine:
        note += REFINED
    curves = {
        shown: {name: ablation.efficiency(row, measure) for name, row in rows.items()}
        for measure, shown in MEASURES.items()
    }
    kinds = [kind for kind in cfg.queries if kind != "text"]
    tables = [ablation.table(rows, gap), ablation.kinds_table(rows, kinds)]
    tables.append(ablation.start_table(rows))
    if "base" in rows:
        tables.append(ablation.efficiency_table(curves))
        note += EFFICIENCY.format(valid=cfg.valid_mixtures)
    page = "\n\n".join([*tables, note])
    report.write_text(out / "table.md", page)
    figures.save(ablation.draw_curves(curves), out / "curves.png")
    points = {
        name: (row.gain("text", "judge_similarity"), row.gain("text", "si_sdri"))
        for name, row in rows.items()
    }
    figures.save(ablation.draw_trade(points), out / "trade.png")
    if cfg.results:
        task = HydraConfig.get().overrides.task
        head = ["# Ablation", "", f"Machine: {results.machine()}.", ""]
        about = COMMANDS.format(made=command("ablate", task), seed=cfg.seeds[0])
        made = []
        for name, row in rows.items():
            made += [f"- {name}: `{' '.join(cfg.grid[name])}`"]
            made += [f"  - `{line}`" for line in row.commands]
        text = "\n".join([*head, page, about, *made, ""])
        report.write_text(Path(cfg.results), text)
    say(f"\n{page}\n{out}: table.md, curves.png, trade.png")


@hydra.main(version_base=None, config_path="conf", config_name="ablate")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    # a job on another machine imports rl and train, too
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
    main()
