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


def recall(
    queries: Tensor,
    gallery: Tensor,
    query_label: Tensor,
    gallery_label: Tensor,
    ks: Sequence[int] = (1,),
) -> list[float]:
    """R@k by class: share of the queries with an item of their class among the k nearest.

    Args:
        queries: (n, D) unit vectors; gallery: (m, D). Where both are the same tensor, an item does
            not find itself.
        query_label: (n,) class indices; gallery_label: (m,).
        ks: sizes k.

    Returns:
        One value a k, over the queries that have anything to find; NaN where none has.
    """
    query_label, gallery_label = (x.to(queries.device) for x in (query_label, gallery_label))
    similarity = queries @ gallery.T
    relevant = query_label[:, None] == gallery_label[None, :]
    if queries is gallery:
        similarity.fill_diagonal_(-2)
        relevant.fill_diagonal_(False)
    searched = relevant.any(1)
    if not bool(searched.any()):
        return [float("nan")] * len(ks)
    order = similarity[searched].argsort(1, descending=True)
    hit = relevant[searched].gather(1, order)
    return [float(hit[:, :k].any(1).float().mean()) for k in ks]


def auc(higher: Tensor, lower: Tensor) -> float:
    """Probability that a value of `higher` (n,) is above one of `lower` (m,), ties by half."""
    difference = higher[:, None] - lower[None, :]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())


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

    Also what a reward is judged by: the gaps between the clean target and the mixture at 0 dB or
    the clean interferer, how well the cosine alone tells these apart (AUC), and whether it follows
    the SNR.

    Args:
        encoder: under test.
        bank: clips it was not trained on.
        text: (C, D) embedding of each class of the bank.
        length: segment in samples.
        mixtures: how many, drawn with `seed`.
        snrs_db: points of the curve.

    Returns:
        `snr_<dB>` for each point, `clean` and `interferer`; `rising`, the share of steps up in SNR
        that raise the cosine; `monotone`, the share of mixtures whose every step from -10 to 20 dB
        does, and `monotone_10`, from multiple to multiple of 10 dB; with a point at 0 dB also
        `gap`, `auc`; and `gap_interferer`, `auc_interferer`.
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
    levels = [(1.0, 10 ** (-snr_db / 20)) for snr_db in snrs_db] + [(1.0, 0.0), (0.0, 1.0)]
    for own, other in levels:
        wave = own * first + other * second
        cosine = [
            (encoder.embed_audio(part, encoder.sample_rate) * q).sum(-1)
            for part, q in zip(wave.split(32), query.split(32), strict=True)
        ]
        columns.append(torch.cat(cosine))
    interferer, clean = columns.pop(), columns[-1]
    table = torch.stack(columns)  # (points + 1, mixtures), the last without the interferer
    mean = table.mean(1).tolist()
    row = {f"snr_{snr_db:+g}": value for snr_db, value in zip(snrs_db, mean, strict=False)}
    row |= {"clean": mean[-1], "interferer": float(interferer.mean())}
    if 0 in snrs_db:
        mixture = table[list(snrs_db).index(0)]
        row |= {"gap": float((clean - mixture).mean()), "auc": auc(clean, mixture)}
    row["gap_interferer"] = float((clean - interferer).mean())
    row["auc_interferer"] = auc(clean, interferer)
    rising = table[1:] > table[:-1]
    row["rising"] = float(rising.float().mean())
    for name, step in (("monotone", 1), ("monotone_10", 10)):
        points = [k for k, s in enumerate(snrs_db) if -10 <= s <= 20 and s % step == 0]
        row[name] = float((table[points].diff(dim=0) > 0).all(0).float().mean())
    return row


def _active_rms(wave: Tensor, frame: int = 320) -> Tensor:
    """RMS (B,) over the frames that are at most 40 dB under the loudest one."""
    power = wave[:, : wave.shape[-1] // frame * frame].unflatten(-1, (-1, frame)).square().mean(-1)
    active = power >= power.amax(-1, keepdim=True) * 1e-4
    return ((power * active).sum(-1) / active.sum(-1)).sqrt().clamp_min(1e-8)
