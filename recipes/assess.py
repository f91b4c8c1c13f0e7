"""Judge the judges: what encoders know, and what they are worth as rewards.

For every encoder named: retrieval between text, sound and picture in all six directions (R@1, 5, 10
by class), sound to sound, zero-shot accuracy, the gaps and AUC of clean target against mixture and
interferer, and the similarity-against-SNR curve; for each of `groups`, accuracy among its classes
alone. Writes `exp/<tag>/assess/`: table.md, assess.csv and snr.png. The mixtures are drawn once by
seed, so all encoders hear the same ones.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import normalize

import encoders
from encoders import probe
from encoders.bank import ClipBank
from encoders.base import Encoder, EncoderError
from encoders.cache import EmbeddingCache
from encoders.checkpoint import read_config
from encoders.judge import Judge
from sep.data.kaldi import SAMPLE_RATE, DataDir, held
from sep.device import resolve
from sep.program import guarded, say

KS = (1, 5, 10)


def assess(cfg: DictConfig) -> None:
    """Score every encoder on one split and write table, values and figure."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device = resolve(cfg.device)
    data = held(Path(cfg.data) / cfg.split, SAMPLE_RATE, cfg.bank_gb, cfg.seed, say)
    rows: dict[str, dict[str, Any]] = {}
    own = {name: f"{cfg.exp}/{name}" for name in ("encoder", "judge")}
    for name, what in (cfg.encoders or own).items():
        say(f"assess: {name}: {what}")
        rows[name] = score(cfg, data, what, device)
        shown = ("zero_shot", "gap", "auc", "monotone")
        say(f"assess: {name}: " + "  ".join(f"{k} {rows[name][k]:.3f}" for k in shown))
    folder = Path(cfg.exp) / "assess"
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "assess.csv", rows)
    table = markdown(rows, cfg, len(data))
    (folder / "table.md").write_text(table, encoding="utf-8")
    draw(folder / "snr.png", rows)
    print(table)
    say(f"assess: wrote {folder}/table.md, assess.csv and snr.png")


def score(cfg: DictConfig, data: DataDir, what: str, device: torch.device) -> dict[str, Any]:
    """All values of one encoder: a folder of one or of a judge, or a name of the registry."""
    classes = sorted(set(data.label.values()))
    label = torch.tensor([classes.index(data.label[i]) for i in data.ids])
    folder = Path(what)
    if folder.is_dir() and read_config(folder).get("name") == "judge":
        encoder: Any = _JudgeEncoder(Judge.load(folder).to(device), classes)
        text, row = encoder.vectors, {}
        audio = probe.embed_bank(encoder, _bank(data, encoder, device), encoder.window)
    else:
        encoder = (encoders.load if folder.is_dir() else encoders.get)(what, device=device)
        cache = EmbeddingCache(cfg.cache, encoder, say)
        audio = cache.audio([data.wav[i] for i in data.ids])
        text = cache.text([f"the sound of {name}" for name in classes])
        row = directions(cache, data, classes, audio, label)
        row |= grouped(cfg, cache, data, classes, audio, label)
    own = probe.recall(audio, audio, label, label, KS)
    row |= {f"audio-audio R@{k}": value for k, value in zip(KS, own, strict=True)}
    row["zero_shot"] = probe.zero_shot(audio, text.to(audio.device), label)
    bank = _bank(data, encoder, device)
    return row | probe.snr_curve(
        encoder, bank, text.to(device), round(4.096 * encoder.sample_rate), cfg.mixtures, cfg.seed
    )


def directions(
    cache: EmbeddingCache, data: DataDir, classes: list[str], audio: Tensor, label: Tensor
) -> dict[str, float]:
    """R@k between every two of text, sound and picture, each distinct caption and picture once."""
    captions = sorted({(data.text[i], data.label[i]) for i in data.ids})
    items = {
        "text": (cache.text([text for text, _ in captions]), [of for _, of in captions]),
        "audio": (audio, None),
    }
    pictures = sorted({(data.image[i], data.label[i]) for i in data.ids if i in data.image})
    if pictures:
        try:
            items["image"] = (cache.image([p for p, _ in pictures]), [of for _, of in pictures])
        except EncoderError as error:
            say(f"assess: no pictures: {error}")
    index = {
        kind: label if of is None else torch.tensor([classes.index(name) for name in of])
        for kind, (_, of) in items.items()
    }
    row = {}
    for query, (vectors, _) in items.items():
        for found, (gallery, _) in items.items():
            if query != found:
                values = probe.recall(vectors, gallery, index[query], index[found], KS)
                row |= {f"{query}-{found} R@{k}": v for k, v in zip(KS, values, strict=True)}
    return row


def grouped(
    cfg: DictConfig,
    cache: EmbeddingCache,
    data: DataDir,
    classes: list[str],
    audio: Tensor,
    label: Tensor,
) -> dict[str, float]:
    """Accuracy among the classes of each group alone, on the recordings with an id of its prefix.

    By text (each class the mean of its wordings by `cfg.templates`), by sound (the nearest
    recording of the split `cfg.gallery`) and by picture (the nearest class, each the mean of its
    pictures in this split, over the sounds of classes that have one). "mean of classes" gives every
    class the same weight.
    """
    row: dict[str, float] = {}
    gallery = DataDir(Path(cfg.data) / cfg.gallery) if cfg.gallery else None
    for name, group in (cfg.groups or {}).items():
        prefix, wanted = group.get("prefix", ""), group.get("classes") or classes
        rows = [k for k, id_ in enumerate(data.ids)
                if id_.startswith(prefix) and data.label[id_] in wanted]  # fmt: skip
        if not rows:
            say(f"assess: group {name}: no recordings; left out")
            continue
        wanted = sorted(set(wanted) & {data.label[data.ids[k]] for k in rows})
        sounds = audio[rows]
        of_sound = torch.tensor([wanted.index(data.label[data.ids[k]]) for k in rows])
        texts = [cache.text([t.format(c) for c in wanted]).float() for t in cfg.templates]
        text = normalize(torch.stack(texts).mean(0), dim=-1)
        right = (sounds @ text.to(sounds.device).T).argmax(1).cpu() == of_sound
        row |= {f"{name}: by text": float(right.float().mean())}
        row |= {f"{name}: by text, mean of classes": _mean_of_classes(right, of_sound)}
        if gallery is not None:
            ids = [i for i in gallery.ids if gallery.label[i] in wanted]
            found = cache.audio([gallery.wav[i] for i in ids])
            of_found = torch.tensor([wanted.index(gallery.label[i]) for i in ids])
            right = of_found[(sounds @ found.T).argmax(1).cpu()] == of_sound
            row |= {f"{name}: by sound": float(right.float().mean())}
        pictures = sorted({(data.image[i], data.label[i]) for i in data.ids if i in data.image})
        pictures = [(path, of) for path, of in pictures if of in wanted]
        if pictures:
            vectors = cache.image([path for path, _ in pictures]).float()
            seen = sorted({wanted.index(of) for _, of in pictures})
            means = [vectors[[wanted.index(of) == k for _, of in pictures]].mean(0) for k in seen]
            means = normalize(torch.stack(means), dim=-1)
            heard = torch.isin(of_sound, torch.tensor(seen))
            nearest = torch.tensor(seen)[(sounds[heard] @ means.T).argmax(1).cpu()]
            right = nearest == of_sound[heard]
            row |= {f"{name}: by picture, {len(seen)} classes": float(right.float().mean())}
    return row


def _mean_of_classes(right: Tensor, label: Tensor) -> float:
    return float(torch.stack([right[label == k].float().mean() for k in label.unique()]).mean())


class _JudgeEncoder:
    """A held-out judge as far as the probes need an encoder: its classes are its texts."""

    def __init__(self, judge: Judge, classes: list[str]):
        unknown = sorted(set(classes) - set(judge.labels))
        if unknown:
            raise EncoderError(f"the judge does not know the class {unknown[0]}")
        self.embed_audio, self.sample_rate, self.window = (
            judge.embed,
            judge.sample_rate,
            judge.window,
        )
        rows = torch.tensor([judge.labels.index(name) for name in classes])
        vectors = torch.nn.functional.normalize(judge.class_vectors.detach(), dim=-1)
        self.vectors = vectors[rows.to(vectors.device)]


def _bank(data: DataDir, encoder: Encoder, device: torch.device) -> ClipBank:
    labels = [data.label[i] for i in data.ids]
    paths = [data.wav[i] for i in data.ids]
    return ClipBank.read(paths, labels, encoder.sample_rate, sorted(set(labels)), device)


def write_csv(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """One line a value: encoder, name, value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["encoder", "name", "value"])
        for name, row in rows.items():
            writer.writerows([name, key, f"{value:.6g}"] for key, value in row.items())


def markdown(rows: dict[str, dict[str, Any]], cfg: DictConfig, clips: int) -> str:
    """The values side by side, one column an encoder."""
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| | " + " | ".join(rows) + " |", "| --- |" + " ---: |" * len(rows)]
    for key in keys:
        cells = [f"{row[key]:.3f}" if key in row else "-" for row in rows.values()]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + (
        f"\n\n{clips} recordings of the {cfg.split} split, {cfg.mixtures} mixtures of two, seed "
        f"{cfg.seed}. R@k: one of the k nearest is of the query's class. gap: mean cosine to the "
        "target's text, clean target less its mixture at 0 dB; auc: how often the one is above the "
        "other; gap_interferer, auc_interferer: the same against the clean interferer. rising: "
        "steps up in SNR that raise the cosine; monotone: mixtures whose every step from -10 to "
        "20 dB does; monotone_10: that in steps of 10 dB.\n"
    )


def draw(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Similarity against SNR, one line an encoder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, row in rows.items():
        points = [(float(k[4:]), v) for k, v in row.items() if k.startswith("snr_")]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="SNR of the target in dB", ylabel="mean cosine to the target's text")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


@hydra.main(version_base=None, config_path="conf", config_name="assess")
def main(cfg: DictConfig) -> None:
    guarded(assess, cfg)


if __name__ == "__main__":
    main()
