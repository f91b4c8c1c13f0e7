"""Losses that bring sounds, texts and pictures into one space. Pure functions of tensors.

Shapes: B batch, C class, D embedding. Embeddings are unit vectors; `scale` is the inverse
temperature.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def info_nce(a: Tensor, b: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE over B pairs, where others of the same class are no negatives.

    loss = (CE(S, i) + CE(S^T, i)) / 2 with S = scale a b^T and S_ij = -inf where i != j have one
    label (CLIP, arXiv 2103.00020, with the false negatives masked).

    Args:
        a: (B, D) embeddings.
        b: (B, D) embeddings, row i belonging to row i of `a`.
        labels: (B,) class indices.
        scale: inverse temperature.

    Returns:
        Scalar loss; 0 where every pair has the same label.
    """
    same = labels[:, None] == labels[None, :]
    same = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = (scale * a @ b.T).masked_fill(same, -math.inf)
    index = torch.arange(len(labels), device=labels.device)
    return (cross_entropy(logits, index) + cross_entropy(logits.T, index)) / 2


def soft_labels(
    first: Tensor, second: Tensor, snr_db: Tensor, classes: int, slope: float = math.log(10) / 10
) -> Tensor:
    """Share of each class in two-source mixtures, graded by their SNR.

    The first source gets sigmoid(slope x SNR), the second the rest; the default slope makes that
    the share of energy. A lone source is a mixture with an SNR of infinity.

    Args:
        first: (B,) class index of the first source.
        second: (B,) class index of the second source.
        snr_db: (B,) level of the first over the second in dB.
        classes: C.
        slope: growth of the log odds per dB.

    Returns:
        (B, C) rows that sum to 1.
    """
    share = torch.sigmoid(slope * snr_db)
    labels = torch.zeros(len(first), classes, device=snr_db.device, dtype=share.dtype)
    labels.scatter_add_(1, first[:, None], share[:, None])
    return labels.scatter_add_(1, second[:, None], 1 - share[:, None])


def soft_nce(logits: Tensor, affinity: Tensor) -> Tensor:
    """InfoNCE with graded positives, both ways.

    Rows: cross-entropy of softmax(logits) against the affinity normalised over columns. Columns
    that have any affinity: the same over rows. With one-hot affinity this is the CLIP loss.

    Args:
        logits: (B, C) scaled similarities.
        affinity: (B, C) non-negative; every row has a positive entry.

    Returns:
        Scalar mean of the two directions.
    """
    rows = affinity / affinity.sum(1, keepdim=True)
    loss_rows = -(rows * logits.log_softmax(1)).sum(1).mean()
    mass = affinity.sum(0)
    columns = affinity / mass.clamp_min(1e-8)
    per_column = -(columns * logits.log_softmax(0)).sum(0)
    # A column counts by the mass it has, at most one, so that a trace of a class stays a trace.
    weight = mass.clamp(max=1)
    return (loss_rows + (per_column * weight).sum() / weight.sum()) / 2


def triplet(
    anchor: Tensor,
    positive: Tensor,
    anchor_labels: Tensor,
    positive_labels: Tensor,
    margin: float = 0.2,
) -> Tensor:
    """Triplet loss on cosines with the hardest negative of the batch.

    loss = mean_i max(0, margin - cos(a_i, p_i) + max_j cos(a_i, p_j)), j of another class.

    Args:
        anchor: (B, D) unit vectors.
        positive: (B, D), row i belonging to row i of `anchor`.
        anchor_labels, positive_labels: (B,) class indices.
        margin: by which a pair should be closer than any other.

    Returns:
        Scalar; rows without a negative count as 0.
    """
    cosine = anchor @ positive.T
    same = anchor_labels[:, None] == positive_labels[None, :]
    hardest = cosine.masked_fill(same, -math.inf).amax(1)
    return (margin - cosine.diagonal() + hardest).clamp(min=0).mean()


def consistency(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos between two views (B, D) of the same sounds, unit vectors."""
    return (1 - (a * b).sum(-1)).mean()


def rank(
    cosine: Tensor, other: Tensor, snr_db: Tensor, other_db: Tensor, per_db: float = 0.01
) -> Tensor:
    """Hinge loss on the order of two versions of one mixture that differ in the target's SNR.

    loss = mean_i max(0, m_i - sign(d_i) (other_i - cosine_i)) with d = other_db - snr_db and the
    margin m = `per_db` min(|d|, 20). A reward ranks the masks of one mixture; this is that task.

    Args:
        cosine: (B,) similarities to the target.
        other: (B,) of the other versions.
        snr_db: (B,) levels in dB of the target over the rest.
        other_db: (B,) in the other versions.
        per_db: by which the cosine should rise with each dB.

    Returns:
        Scalar.
    """
    step_db = other_db - snr_db
    margin = per_db * step_db.abs().clamp(max=20)
    return (margin - step_db.sign() * (other - cosine)).clamp(min=0).mean()
