"""Stage 3: embed the queries of every recording once, to exp/<tag>/queries/<split>.safetensors.

Tensors: text (n, V, D) with the V wordings caption, "the sound of LABEL" and LABEL; audio (n, D);
image (n, D), zero where there is no picture; has_image (n,). Metadata: ids and the encoder's
fingerprint.
"""

import json
import os
import time
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor

import encoders
from encoders.bank import read_mono
from encoders.base import EncoderError, check_wave
from encoders.preprocess import tile
from encoders.small import SmallEncoder
from sep.data.kaldi import DataDir
from sep.device import resolve
from sep.program import guarded, say


def embed_texts(encoder: SmallEncoder, data: DataDir) -> Tensor:
    """Embed three wordings for each recording: (n, 3, D), each distinct text once."""
    rows = [(data.text[i], f"the sound of {data.label[i]}", data.label[i]) for i in data.ids]
    unique = sorted({text for row in rows for text in row})
    place = {text: i for i, text in enumerate(unique)}
    index = torch.tensor([[place[text] for text in row] for row in rows])
    return encoder.embed_text(unique)[index]


def embed_sounds(encoder: SmallEncoder, data: DataDir, batch: int = 32) -> Tensor:
    """Embed whole recordings: (n, D). Those of one window or less go in batches."""
    rate, window = encoder.sample_rate, encoder.window
    out = torch.zeros(len(data.ids), encoder.dim, device=encoder.device)
    short: list[int] = []
    waves: list[Tensor] = []
    spoke = time.monotonic()

    def flush() -> None:
        if short:
            out[short] = encoder.embed_audio(torch.cat(waves), rate)
            short.clear()
            waves.clear()

    for row, id_ in enumerate(data.ids):
        wave = read_mono(data.wav[id_], rate)[None]
        try:
            check_wave(wave, rate)
        except EncoderError as error:
            raise EncoderError(f"{data.wav[id_]}: {error}") from None
        if wave.shape[-1] > window:
            out[row] = encoder.embed_audio(wave, rate)[0]
        else:
            short.append(row)
            waves.append(tile(wave, window))
        if len(short) == batch:
            flush()
        if time.monotonic() - spoke > 5:
            say(f"embed: {row + 1}/{len(data.ids)} recordings of {data.path.name}")
            spoke = time.monotonic()
    flush()
    return out


def embed_pictures(encoder: SmallEncoder, data: DataDir) -> tuple[Tensor, Tensor]:
    """Embed pictures: (n, D), zero where there is none, and which have one (n,)."""
    has = torch.tensor([i in data.image for i in data.ids], dtype=torch.uint8)
    out = torch.zeros(len(data.ids), encoder.dim, device=encoder.device)
    unique = sorted({data.image[i] for i in data.ids if i in data.image})
    if unique:
        place = {path: i for i, path in enumerate(unique)}
        index = [place[data.image[i]] for i in data.ids if i in data.image]
        out[has.bool()] = encoder.embed_image(unique)[index]
    return out, has


@torch.no_grad()
def embed(cfg: DictConfig) -> None:
    """Embed every split with the aligned encoder."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    encoder = encoders.load(Path(cfg.exp) / "encoder", device=resolve(cfg.device))
    folder = Path(cfg.exp) / "queries"
    folder.mkdir(parents=True, exist_ok=True)
    for split in cfg.splits:
        data = DataDir(Path(cfg.data) / split)
        began = time.monotonic()
        image, has_image = embed_pictures(encoder, data)
        tensors = {
            "text": embed_texts(encoder, data),
            "audio": embed_sounds(encoder, data),
            "image": image,
            "has_image": has_image,
        }
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
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
