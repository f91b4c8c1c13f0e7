"""What an encoder has learned: zero-shot accuracy, retrieval, and its worth as a reward.

Shapes: B batch, C class, D embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.bank import ClipBank
from encoders.base import Encoder

SNR_DB = (-20, -10, -5, 0, 5, 10, 20, 30)


@torch.no_grad()
def embed_bank(encoder: Encoder, bank: ClipBank, length: int, batch: int = 64) -> Tensor:
    """Embed the first `length` samples of every clip: (n, D)."""
    parts = []
    for index in torch.arange(len(bank)).split(batch):
        wave = bank.head(index.to(bank.samples.device), length)
        parts.append(encoder.embed_audio(wave, encoder.sample_rate))
    return torch.cat(parts)


def zero_shot(audio: Tensor, text: Tensor, label: Tensor) -> float:
    """Share of the sounds (n, D) whose nearest class text (C, D) is that of their label (n,)."""
    return float(((audio @ text.T).argmax(1) == label.to(audio.device)).float().mean())


def recall_at_1(
    audio: Tensor, captions: Tensor, caption_label: Sequence[int], label: Tensor
) -> float:
    """Share of the sounds (n, D) whose nearest distinct caption (m, D) is of their class."""
    nearest = (audio @ captions.T).argmax(1)
    found = torch.as_tensor(caption_label, device=audio.device)[nearest]
    return float((found == label.to(audio.device)).float().mean())


def same_class_recall(audio: Tensor, label: Tensor) -> float:
    """Share of the sounds whose nearest other sound is of their class, where there is one."""
    label = label.to(audio.device)
    similarity = (audio @ audio.T).fill_diagonal_(-2)
    other = (label[:, None] == label[None, :]).sum(1) > 1
    hit = label[similarity.argmax(1)] == label
    return float(hit[other].float().mean()) if bool(other.any()) else float("nan")


@torch.no_grad()
def snr_curve(
    encoder: Encoder,
    bank: ClipBank,
    text: Tensor,
    length: int,
    mixtures: int = 64,
    seed: int = 0,
    snrs_db: Sequence[float] = SNR_DB,
) -> dict[str, float]:
    """Mean cosine of two-source mixtures to the target's text, against the target's SNR.

    Also the reward gap (clean target minus mixture at 0 dB) and the share of mixtures in which
    every step up in SNR raises the cosine.

    Args:
        encoder: under test.
        bank: clips it was not trained on.
        text: (C, D) embedding of each class of the bank.
        length: segment in samples.
        mixtures: how many, drawn with `seed`.
        snrs_db: points of the curve.

    Returns:
        `snr_<dB>` for each point, `clean`, `gap`, `rising`.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = bank.draw_classes(mixtures, generator)
    others = bank.draw_others(classes, generator)
    first, second = (
        bank.segments(bank.draw_clips(c, generator).to(bank.samples.device), length, generator)
        for c in (classes, others)
    )
    query = text[classes.to(text.device)]
    first, second = (x / _active_rms(x)[:, None] for x in (first, second))
    columns = []
    for snr_db in [*snrs_db, float("inf")]:
        wave = first + second * 10 ** (-snr_db / 20)
        cosine = [
            (encoder.embed_audio(part, encoder.sample_rate) * q).sum(-1)
            for part, q in zip(wave.split(32), query.split(32), strict=True)
        ]
        columns.append(torch.cat(cosine))
    table = torch.stack(columns)  # (points + 1, mixtures)
    mean = table.mean(1).tolist()
    row = {f"snr_{snr_db:+g}": value for snr_db, value in zip(snrs_db, mean, strict=False)}
    row["clean"] = mean[-1]
    if 0 in snrs_db:
        row["gap"] = mean[-1] - mean[list(snrs_db).index(0)]
    row["rising"] = float((table[1:] > table[:-1]).float().mean())
    return row


def _active_rms(wave: Tensor, frame: int = 320) -> Tensor:
    """RMS (B,) over the frames that are at most 40 dB under the loudest one."""
    power = wave[:, : wave.shape[-1] // frame * frame].unflatten(-1, (-1, frame)).square().mean(-1)
    active = power >= power.amax(-1, keepdim=True) * 1e-4
    return ((power * active).sum(-1) / active.sum(-1)).sqrt().clamp_min(1e-8)
