"""Stage 3: embed the queries of every recording, to exp/<tag>/queries/<split>.safetensors.

What this encoder embedded before, here or for another tag of the data, is taken from the cache.

Tensors: text (n, V, D) with the V wordings caption, "the sound of LABEL", LABEL, and `FURTHER` more
where a table has some; audio (n, D); image (n, D), zero where there is no picture; has_image (n,).
Metadata: ids and the encoder's fingerprint.
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
from safetensors.torch import save_file
from torch import Tensor

import encoders
from encoders.cache import EmbeddingCache
from sep.data import wording
from sep.data.kaldi import DataDir
from sep.device import resolve
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


def embed_pictures(cache: EmbeddingCache, data: DataDir) -> tuple[Tensor, Tensor]:
    """Embed pictures: (n, D), zero where there is none, and which have one (n,)."""
    has = torch.tensor([i in data.image for i in data.ids], dtype=torch.uint8)
    out = torch.zeros(len(data.ids), cache.encoder.dim)
    if has.any():
        out[has.bool()] = cache.image([data.image[i] for i in data.ids if i in data.image])
    return out, has


def embed(cfg: DictConfig) -> None:
    """Embed every split with the aligned encoder."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    encoder = encoders.load(Path(cfg.exp) / "encoder", device=resolve(cfg.device))
    cache = EmbeddingCache(cfg.cache, encoder, say)
    further = wording.read(cfg.wordings)
    folder = Path(cfg.exp) / "queries"
    folder.mkdir(parents=True, exist_ok=True)
    for split in cfg.splits:
        data = DataDir(Path(cfg.data) / split)
        began = time.monotonic()
        image, has_image = embed_pictures(cache, data)
        tensors = {
            "text": embed_texts(cache, data, further),
            "audio": cache.audio([data.wav[i] for i in data.ids]),
            "image": image,
            "has_image": has_image,
        }
        metadata = {"ids": json.dumps(data.ids), "encoder": encoder.fingerprint}
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
