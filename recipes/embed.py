"""Stage 3: embed the queries of every recording, to exp/<tag>/queries/<split>.safetensors.

What this encoder embedded before, here or for another tag of the data, is taken from the cache.
With `unseen`, made by `recipes/pictures.py folds=3`, training pictures are embedded as by encoders
that had not seen them.

Tensors: text (n, V, D) with the V wordings caption, "the sound of LABEL", LABEL, and `FURTHER` more
where a table has some; audio (n, D); image (n, D), zero where there is no picture; has_image (n,);
pictures (P, D) where the data list all pictures of their classes. Metadata: ids, the classes of
`pictures` and the encoder's fingerprint.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import json
import os
import time
from collections import Counter
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import encoders
from encoders.cache import EmbeddingCache
from sep.data import wording
from sep.data.kaldi import DataDir
from sep.device import resolve
from sep.errors import DataError
from sep.program import guarded, say

FURTHER = 5  # of a recording; those of its class take turns


def texts(data: DataDir, further: wording.Wordings) -> list[list[str]]:
    """The wordings of each recording, as many of one as of another."""
    rows, turn = [], Counter()
    for id_ in data.ids:
        label = data.label[id_]
        row = [data.text[id_], f"the sound of {label}", label]
        if further:
            more = wording.of(further, label) or row
            row += [more[(turn[label] + k) % len(more)] for k in range(FURTHER)]
            turn[label] += FURTHER
        rows.append(row)
    return rows


def embed_texts(cache: EmbeddingCache, data: DataDir, further: wording.Wordings) -> Tensor:
    """Embed the wordings of each recording: (n, V, D)."""
    rows = texts(data, further)
    return cache.text([text for row in rows for text in row]).unflatten(0, (len(rows), -1))


def read_unseen(path: str | None, encoder: encoders.Encoder) -> dict[str, Tensor]:
    """Embeddings (D,) of pictures by encoders that had not learned from them, by path.

    Raises:
        DataError: the file is missing, damaged or of another encoder.
    """
    if not path:
        return {}
    again = "run recipes/pictures.py folds=3 again"
    try:
        with safe_open(path, framework="pt") as file:
            metadata, vectors = file.metadata(), file.get_tensor("image")
        paths = json.loads(metadata["paths"])
        made_by = metadata["encoder"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {again}") from None
    if made_by != encoder.fingerprint:
        raise DataError(f"{path}: made from another encoder; {again}")
    return dict(zip(paths, vectors, strict=True))


def embed_pictures(
    cache: EmbeddingCache, data: DataDir, unseen: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Embed pictures: (n, D), zero where there is none, and which have one (n,).

    Those in `unseen` are taken from there.
    """
    has = torch.tensor([i in data.image for i in data.ids], dtype=torch.uint8)
    out = torch.zeros(len(data.ids), cache.encoder.dim)
    if has.any():
        paths = [data.image[i] for i in data.ids if i in data.image]
        out[has.bool()] = embed_images(cache, paths, unseen)
    return out, has


def embed_images(cache: EmbeddingCache, paths: list[str], unseen: dict[str, Tensor]) -> Tensor:
    """Embed pictures: (n, D); those in `unseen` are taken from there."""
    rest = [path for path in paths if path not in unseen]
    known = unseen | dict(zip(rest, cache.image(rest), strict=True))
    return torch.stack([known[path] for path in paths])


def embed(cfg: DictConfig) -> None:
    """Embed every split with the aligned encoder."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    encoder = encoders.load(Path(cfg.exp) / "encoder", device=resolve(cfg.device))
    cache = EmbeddingCache(cfg.cache, encoder, say)
    further, unseen = wording.read(cfg.wordings), read_unseen(cfg.unseen, encoder)
    folder = Path(cfg.exp) / "queries"
    folder.mkdir(parents=True, exist_ok=True)
    for split in cfg.splits:
        data = DataDir(Path(cfg.data) / split)
        began = time.monotonic()
        image, has_image = embed_pictures(cache, data, unseen)
        tensors = {
            "text": embed_texts(cache, data, further),
            "audio": cache.audio([data.wav[i] for i in data.ids]),
            "image": image,
            "has_image": has_image,
        }
        metadata = {"ids": json.dumps(data.ids), "encoder": encoder.fingerprint}
        if data.listed:
            tensors["pictures"] = embed_images(cache, [path for path, _ in data.pictures], unseen)
            metadata["pictures"] = json.dumps([label for _, label in data.pictures])
        temporary = folder / f".{split}.safetensors.tmp"
        save_file(tensors, temporary, metadata)
        os.replace(temporary, folder / f"{split}.safetensors")
        say(
            f"embed: {split}: {len(data)} recordings, {int(has_image.sum())} with a picture, "
            f"{time.monotonic() - began:.0f} s"
        )


@hydra.main(version_base=None, config_path="conf", config_name="embed")
def main(cfg: DictConfig) -> None:
    guarded(embed, cfg)


if __name__ == "__main__":
    main()
