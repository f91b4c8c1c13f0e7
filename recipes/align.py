"""Stage 2: align the query encoder on the recipe's own recordings, captions and pictures.

In three stages (`encoders.aligner`), each from the best weights of the one before. `align.tune`
says what moves of the audio tower; of the text and image towers only the projection heads do. The
weights that validate best go to `exp/<tag>/encoder`, written once at the end, so a killed run
leaves no half encoder and simply starts again; with `keep_stages` those of every stage, and those
before the first, go to `exp/<tag>/stages/<stage>`. `exp/<tag>/log/align.csv` holds the training
and `align_valid.csv` the validations. Where no stage has steps the encoder is saved as it is, such
as the published ImageBind for a published separator.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import os
import time
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image, ImageOps
from torch import Tensor

import encoders
from encoders import probe
from encoders.aligner import AlignConfig, Aligner, Stage
from encoders.bank import ClipBank
from encoders.base import Alignable
from encoders.preprocess import open_image
from encoders.small import SmallEncoder
from encoders.words import learn_words
from sep.data import wording
from sep.data.kaldi import DataDir, held
from sep.device import resolve
from sep.errors import OptionError
from sep.program import Pace, guarded, say

AT_ONCE = 128  # pictures that are in memory together, each with its views


def build(settings: dict[str, Any], device: torch.device) -> Alignable:
    """The encoder to start from; weights that are given fix its geometry."""
    name, weights = settings.pop("name"), settings.pop("weights")
    if weights is None:
        return encoders.get(name, device=device, **settings)
    encoder = encoders.get(name, weights=weights, device=device)
    for key in {"batch", "checkpointing"} & settings.keys():
        setattr(encoder, key, settings[key])
    return encoder


def wordings(data: DataDir, label: str, further: wording.Wordings) -> list[str]:
    """The texts that name a class: captions of its recordings, "the sound of X", X, and others."""
    captions = {data.text[i] for i in data.ids if data.label[i] == label}
    texts = [*sorted(captions), f"the sound of {label}", label, *wording.of(further, label)]
    return list(dict.fromkeys(texts))


def read_bank(data: DataDir, classes: list[str], encoder: Alignable) -> ClipBank:
    """Decode a whole split to memory."""
    labels = [data.label[i] for i in data.ids]
    paths = [data.wav[i] for i in data.ids]
    return ClipBank.read(paths, labels, encoder.sample_rate, classes, encoder.device)


def picture_features(
    encoder: Alignable, data: DataDir, classes: list[str], views: bool
) -> tuple[tuple[Tensor, ...], Tensor] | None:
    """Frozen features and class index of each distinct picture, with mirrored and cut views.

    None where there are no pictures, or the encoder does not see.
    """
    if "image" not in encoder.heads:
        return None
    pairs = [(path, label) for path, label in data.pictures if label in classes]
    if not pairs:
        return None
    parts, index = [], []
    for start in range(0, len(pairs), AT_ONCE):
        pictures = []
        for path, label in pairs[start : start + AT_ONCE]:
            made = [open_image(path)]
            if views:
                made += [ImageOps.mirror(made[0]), *_cuts(made[0])]
            pictures += made
            index += [classes.index(label)] * len(made)
        parts.append(encoder.image_features(pictures))
    features = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return features, torch.tensor(index, device=encoder.device)


def _cuts(picture: Image.Image) -> list[Image.Image]:
    """The upper left and lower right four fifths of a picture."""
    width, height = picture.size
    x, y = width // 5, height // 5
    return [picture.crop((0, 0, width - x, height - y)), picture.crop((x, y, width, height))]


class Validation:
    """Scores an encoder on the validation split."""

    def __init__(self, cfg: DictConfig, data: DataDir, classes: list[str], encoder: Alignable):
        self.encoder, self.classes, self.mixtures = encoder, classes, cfg.valid_mixtures
        self.bank = read_bank(data, classes, encoder)
        self.captions = sorted({(data.text[i], data.label[i]) for i in data.ids})
        self.pictures = picture_features(encoder, data, classes, views=False)
        self.segment = round(cfg.valid_segment_s * encoder.sample_rate)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Zero-shot accuracy, retrieval, and the similarity-against-SNR curve."""
        encoder = self.encoder
        text = encoder.embed_text([f"the sound of {name}" for name in self.classes])
        audio = probe.embed_bank(encoder, self.bank, self.segment)
        captions = encoder.embed_text([caption for caption, _ in self.captions])
        of_caption = torch.tensor([self.classes.index(label) for _, label in self.captions])
        row = {
            "zero_shot": probe.zero_shot(audio, text, self.bank.label),
            "recall_at_1": probe.recall(audio, captions, self.bank.label, of_caption)[0],
            "same_class": probe.recall(audio, audio, self.bank.label, self.bank.label)[0],
        }
        if self.pictures is not None:
            features, label = self.pictures
            image = encoder.project_image(*features)
            row["image_zero_shot"] = probe.zero_shot(image, text, label)
        return row | probe.snr_curve(encoder, self.bank, text, self.segment, self.mixtures)


def align(cfg: DictConfig) -> None:
    """Build everything from the configuration, train, and save the best encoder."""
    if int(os.environ.get("RANK", 0)):  # one process is enough; under torchrun the others wait
        return
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    began = time.monotonic()
    torch.manual_seed(cfg.seed)
    device = resolve(cfg.device)
    encoder = build(OmegaConf.to_container(cfg.encoder, resolve=True), device)
    stages = [Stage(name=k, **v) for k, v in OmegaConf.to_container(cfg.stages).items() if v]
    stages = [stage for stage in stages if stage.steps]
    if not stages:
        encoder.save(Path(cfg.exp) / "encoder", {"stages": {}})
        say(f"align: no stage has steps; saved {cfg.exp}/encoder as it is ({encoder.fingerprint})")
        return
    room = encoder.sample_rate, cfg.bank_gb, cfg.seed, say
    train, valid = (held(Path(cfg.data) / split, *room) for split in ("train", "valid"))
    classes = sorted(set(train.label.values()) | set(valid.label.values()))
    bank = read_bank(train, classes, encoder)
    further = wording.read(cfg.wordings)
    named = [wordings(train, label, further) for label in classes]
    if cfg.encoder.weights is None:  # weights that are given bring their text space along
        encoder.fit_text(sorted({text for texts in named for text in texts}))
    if cfg.words:
        if cfg.encoder.weights is None or not further or not isinstance(encoder, SmallEncoder):
            raise OptionError("words needs wordings and encoder.weights of a small encoder")
        before = [wordings(train, label, {}) for label in classes]
        learn_words(encoder, before, [wording.of(further, c) for c in classes], cfg.words)
    pictures = picture_features(encoder, train, classes, views=True)
    config = AlignConfig(**OmegaConf.to_container(cfg.align, resolve=True))
    aligner = Aligner(encoder, bank, named, pictures, config)
    validate = Validation(cfg, valid, classes, encoder)
    seconds = float(bank.length.sum()) / encoder.sample_rate
    say(
        f"align: {len(bank)} recordings ({seconds / 60:.1f} min) of {len(bank.filled)} classes, "
        f"{0 if pictures is None else len(pictures[1])} picture views; "
        f"tuning {aligner.tuning.how}; set up in {time.monotonic() - began:.0f} s"
    )
    provenance = {
        "data": str(cfg.data),
        "align": OmegaConf.to_container(cfg.align, resolve=True),
        "stages": OmegaConf.to_container(cfg.stages, resolve=True),
    }
    provenance["valid"] = fit(cfg, aligner, validate, stages, provenance)
    encoder.eval().requires_grad_(False)
    encoder.save(Path(cfg.exp) / "encoder", provenance)
    say(f"align: saved {cfg.exp}/encoder ({encoder.fingerprint})")


def fit(
    cfg: DictConfig,
    aligner: Aligner,
    validate: Validation,
    stages: list[Stage],
    provenance: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Train stage by stage, each from the best weights of the one before.

    Leaves the best weights in the encoder, adapters folded in; returns the best scores by stage,
    with those at the start as "start".
    """
    logs = Path(cfg.exp) / "log"
    training, validation = Table(logs / "align.csv"), Table(logs / "align_valid.csv")
    best_of: dict[str, dict[str, float]] = {}
    pace = Pace(sum(stage.steps for stage in stages))
    best, step = aligner.state(), 0

    def check(stage: str) -> None:
        nonlocal best
        scores = validate()
        validation.write({"stage": stage, "step": step, **scores})
        say(f"align: {stage}: valid " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items()))
        if stage not in best_of or _merit(scores) >= _merit(best_of[stage]):
            best_of[stage] = {"step": step, **scores}
            best = aligner.state()

    def keep(stage: str) -> None:
        aligner.restore(best)
        if cfg.keep_stages:
            folder = Path(cfg.exp) / "stages" / stage
            aligner.tuning.merged().save(folder, provenance | {"valid": best_of})

    check("start")
    keep("start")
    for stage in stages:
        aligner.begin(stage)
        for k in range(1, stage.steps + 1):
            row, step = aligner.step(), step + 1
            seconds = round(pace.seconds, 2)
            training.write({"stage": stage.name, "step": step, "seconds": seconds, **row})
            parts = " ".join(f"{n[5:]} {v:.2f}" for n, v in row.items() if n[:5] == "loss_")
            words = f"align: {stage.name} {k}/{stage.steps}  loss {row['loss']:.2f} ({parts})"
            pace.tell(step, words, now=k == stage.steps)
            if k % cfg.valid_every == 0 or k == stage.steps:
                aligner.settle()
                check(stage.name)
        keep(stage.name)
    aligner.tuning.merge()
    training.close()
    validation.close()
    return best_of


def _merit(scores: dict[str, float]) -> float:
    """An encoder must know the classes by sound and sight, and tell clean from mixed."""
    return scores["zero_shot"] + scores["gap"] + 0.2 * scores.get("image_zero_shot", 0.0)


class Table:
    """A CSV file that is written row by row; columns that appear later rewrite it."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows, self.columns = path, [], []
        self.file = path.open("w", newline="", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Write one row and flush it."""
        rounded = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        self.rows.append(rounded)
        new = [name for name in row if name not in self.columns]
        self.columns += new
        writer = csv.DictWriter(self.file, self.columns)
        if new:
            self.file.seek(0)
            writer.writeheader()
            writer.writerows(self.rows)
        else:
            writer.writerow(rounded)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


@hydra.main(version_base=None, config_path="conf", config_name="align")
def main(cfg: DictConfig) -> None:
    guarded(align, cfg)


if __name__ == "__main__":
    main()
