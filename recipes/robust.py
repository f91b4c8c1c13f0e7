"""What a separator is worth under conditions that its test mixtures do not have.

Scores SI-SDR by text on fixed mixtures as they are, quieter, noisy, low-passed, in a room, with
more and fewer sources, beside a class that is easily confused, and by other words for a sound.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from sep import hub
from sep.classes import embed_labels
from sep.data.kaldi import SAMPLE_RATE, DataDir
from sep.device import resolve
from sep.errors import DataError, ModelError, OptionError
from sep.metrics import report
from sep.metrics.conditions import Conditions
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.sisdr import si_sdr
from sep.metrics.statistics import paired, summarise
from sep.metrics.system import REFINE, best, estimates, is_refined
from sep.program import guarded, say
from sep.query import TEMPLATES
from sep.separator import SHIPPED

PLAIN = "as they are"
WORDINGS = ("{}", "the sound of {}", "a recording of {}", "I can hear {} here")  # of a label
Scores = dict[str, Tensor]  # (n,) in dB: of the mixture, of the estimate, and the gain


def named(models: list[Any], exp: Path) -> dict[str, Path]:
    """Model folders by name, which ends in +refine where queries are to be refined."""
    found: dict[str, Path] = {}
    for entry in models:
        if isinstance(entry, dict):
            found |= {str(name): Path(folder) for name, folder in entry.items()}
        else:
            shipped = entry.removesuffix(REFINE) == "shipped"
            found[entry] = SHIPPED if shipped else best(exp, entry)
    if not found:
        raise OptionError("models: name one, such as models=[rl] or models=[shipped]")
    return found


def captions(folder: Path, splits: Iterable[str] = ("train", "valid", "test")) -> dict[str, list]:
    """The different captions of each label in those splits that there are, sorted."""
    found: dict[str, set[str]] = {}
    for split in splits:
        if (folder / split).is_dir():
            data = DataDir(folder / split)
            for id_ in data.ids:
                found.setdefault(data.label[id_], set()).add(data.text[id_])
    return {label: sorted(texts) for label, texts in found.items()}


def synonyms(path: str | None) -> dict[str, str]:
    """Other words for labels, from a table with the columns label and words."""
    if path is None:
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"label", "words"} <= rows[0].keys():
        raise DataError(f"{path}: needs tab-separated columns 'label' and 'words' under a heading")
    return {row["label"]: row["words"] for row in rows}


def wordings(clips: EvaluationSet, known: dict[str, list], words: dict[str, str]) -> dict:
    """What is asked for in each mixture, by wording; "" where there are no such words."""
    texts = [m.text for m in clips.mixtures]
    plain = [label.replace("-", " ").replace("_", " ") for label in clips.labels]
    found = {
        "the caption in templates, as `sep separate` asks": [
            tuple(template.format(text) for template in TEMPLATES) for text in texts
        ]
    }
    for template in WORDINGS:
        name = "the label alone" if template == "{}" else f'"{template.format("LABEL")}"'
        found[name] = [template.format(label) for label in plain]
    after = {c: own[(k + 1) % len(own)] for own in known.values() for k, c in enumerate(own)}
    others = [after.get(text, text) for text in texts]
    found["another caption of the class"] = [
        other if other != text else "" for other, text in zip(others, texts, strict=True)
    ]
    if words:
        found["other words"] = [words.get(label, "") for label in clips.labels]
    return found


def embedded(encoder, wanted: Iterable[str | tuple[str, ...]]) -> Tensor:
    """Text embeddings (n, D), the mean of several for a tuple; zeros for ""."""
    wanted = [(texts,) if isinstance(texts, str) else texts for texts in wanted]
    unique = sorted({text for texts in wanted for text in texts if text})
    rows = dict(zip(unique, encoder.embed_text(unique).cpu(), strict=True)) if unique else {}
    zero = torch.zeros(encoder.dim)
    vectors = torch.stack([torch.stack([rows.get(t, zero) for t in ts]).mean(0) for ts in wanted])
    return torch.nn.functional.normalize(vectors, dim=-1)


@torch.inference_mode()
def scored(
    separate: Callable[[Tensor, Tensor], Tensor],
    mixture: Tensor,
    target: Tensor,
    queries: Tensor,
    batch: int,
    device: torch.device,
) -> list[Scores]:
    """Scores of each query of mixtures (n, N) that hold targets (n, N); queries are (n, Q, D).

    `separate` maps mixtures (B, N) and queries (B, Q, D) to estimates (B, Q, N).

    NaN where mixture, target or query is silent; no gain is defined where nothing is to be removed.
    """
    parts = []
    for k in range(0, len(mixture), batch):
        rows = slice(k, k + batch)
        estimate = separate(mixture[rows].to(device), queries[rows].to(device)).cpu()
        parts.append(si_sdr(estimate, target[rows, None]))
    after, before = torch.cat(parts), si_sdr(mixture, target)  # (n, Q), (n,)
    after[~queries.any(-1)] = float("nan")
    before = before.where(before < report.UNBOUNDED_DB, torch.inf)
    return [{"mixture": before, "estimate": a, "gain": a - before} for a in after.unbind(1)]


def evaluate(
    folder: Path, clips: EvaluationSet, cfg: DictConfig, refine: bool = False
) -> dict[str, Scores]:
    """Scores of a model by condition and by wording."""
    device = resolve(cfg.device)
    model = hub.from_pretrained(folder, device).eval()
    if model.sample_rate != SAMPLE_RATE:
        raise ModelError(f"{folder}: is for {model.sample_rate} Hz, the data are at {SAMPLE_RATE}")
    encoder = hub.load_encoder(folder, device)
    separate = partial(estimates, model, encoder if refine else None)
    labels = [[m.label, *m.interferer_labels] for m in clips.mixtures]
    names = sorted({name for row in labels for name in row})
    vectors = embed_labels(encoder, names)
    near = (vectors @ vectors.T).fill_diagonal_(-2).argsort(1, descending=True)[:, :-1]
    worded = wordings(clips, captions(clips.data), synonyms(cfg.synonyms))
    with torch.no_grad():
        asked = embedded(encoder, [m.text for m in clips.mixtures])
        others = {name: embedded(encoder, texts) for name, texts in worded.items()}
    found, asides = {}, {}
    for name, (mixture, target) in Conditions(clips.sources, labels, names, near, cfg.seed):
        queries = [asked, *(others.values() if name == PLAIN else ())]
        asking = torch.stack(queries, 1)
        found[name], *more = scored(separate, mixture, target, asking, cfg.batch, device)
        asides |= {f"asked by {w}": s for w, s in zip(others, more, strict=False)}
        say(f"{name}: {found[name]['estimate'].nanmean():.2f} dB")
    return found | asides


def table(
    found: dict[str, dict[str, Scores]], seed: int, recordings: list[str]
) -> tuple[str, dict]:
    """A line a condition, for each model three columns; and the numbers in it.

    Errors are over the `recordings` of the mixtures' targets.
    """
    header, body, numbers = ["", "mixtures", "SI-SDR before"], {}, {}
    for model, conditions in found.items():
        title = f"{model}: " if len(found) > 1 else ""
        header += [f"{title}after", f"{title}SI-SDRi", f"{title}against the first line"]
        for name, scores in conditions.items():
            entries = {
                key: summarise(value.tolist(), seed, groups=recordings)
                for key, value in scores.items()
            }
            change = paired(scores["gain"], conditions[PLAIN]["gain"], seed, recordings)
            numbers.setdefault(name, {})[model] = entries | {"change": change}
            before = report.cell(entries["mixture"], 2)
            line = body.setdefault(name, [name, str(entries["estimate"]["n"]), before])
            line += [report.cell(entries[key], 2) for key in ("estimate", "gain")]
            sign = "+" if change["mean"] > 0 else ""
            line.append("" if name == PLAIN else sign + report.cell(change, 2))
    return report.markdown(header, body.values()), numbers


def run(cfg: DictConfig) -> None:
    """Score every model under every condition; write and print the table."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    folders = named(OmegaConf.to_container(cfg.models), Path(cfg.exp))
    clips = EvaluationSet(cfg.data, cfg.split, "", cfg.mixtures)
    found = {}
    for name, folder in folders.items():
        say(f"{name}: {len(clips)} mixtures, {folder}")
        found[name] = evaluate(folder, clips, cfg, is_refined(name))
    page, numbers = table(found, cfg.seed, clips.recordings)
    rows = [
        {"id": id_, "system": model, "condition": name, "label": label}
        | {key: float(values[i]) for key, values in scores.items()}
        for model, conditions in found.items()
        for name, scores in conditions.items()
        for i, (id_, label) in enumerate(zip(clips.ids, clips.labels, strict=True))
    ]
    out = Path(cfg.out)
    report.write_csv(out / "per_clip.csv", rows)
    report.write_json(out / "summary.json", numbers)
    report.write_text(out / "table.md", page + "\n")
    say(f"\n{page}\n\n{out}: wrote table.md, summary.json and per_clip.csv")


@hydra.main(version_base=None, config_path="conf", config_name="robust")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
