"""Does the output sound like what was asked for? Similarity and class hits, in batches.

Two listeners answer: the encoder that queries and rewards come from, and a judge that no training
signal ever touched. A gain that only the first hears is reward hacking.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.base import Encoder
from encoders.judge import Judge

BATCH = 8  # clips embedded at once; larger ones fall out of the cache of a CPU
SILENT_PEAK = 1e-6  # full scale 1; below any sample of a 16-bit file


def _batched(function: Callable[[Tensor], Tensor], wave: Tensor) -> Tensor:
    """`function` over slices of at most BATCH clips of `wave`, joined."""
    with torch.no_grad():
        return torch.cat([function(part) for part in wave.split(BATCH)])


def _without_silence(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Which clips (B, N) are silent (B,), and the clips with a constant in the silent ones' place.

    Listeners refuse silence; those clips' scores are replaced by NaN afterwards.
    """
    silent = wave.abs().amax(-1) < SILENT_PEAK
    return silent, wave.masked_fill(silent[:, None], 1.0)


def embed(encoder: Encoder, wave: Tensor, sample_rate: int) -> Tensor:
    """Unit-norm embeddings by the encoder, (B, N) -> (B, D); silent clips give NaN rows."""
    silent, heard = _without_silence(wave)
    embedding = _batched(lambda w: encoder.embed_audio(w, sample_rate), heard)
    return embedding.masked_fill(silent[:, None], float("nan"))


def encoder_scores(
    embedding: Tensor, query: Tensor, class_query: Tensor, label: Tensor
) -> dict[str, Tensor]:
    """Similarity to the query and zero-shot class hits by the encoder.

    Args:
        embedding: (B, D) unit-norm, of the sounds, from `embed`.
        query: (B, D) unit-norm, of what was asked for.
        class_query: (K, D) unit-norm, one a class.
        label: (B,) index of each clip's class among the K.

    Returns:
        `encoder_similarity` (B,) in [-1, 1] and `encoder_hit` (B,) 0 or 1; NaN for silent clips.
    """
    similarity = (embedding * query).sum(-1)
    hit = ((embedding @ class_query.T).argmax(-1) == label).to(similarity.dtype)
    return {
        "encoder_similarity": similarity,
        "encoder_hit": hit.masked_fill(similarity.isnan(), float("nan")),
    }


def judge_scores(
    judge: Judge, wave: Tensor, sample_rate: int, labels: Sequence[str], name: str = "judge"
) -> dict[str, Tensor]:
    """Similarity to the asked class and class hits by the held-out judge.

    Args:
        judge: the held-out classifier.
        wave: (B, N).
        sample_rate: in Hz.
        labels: B class names, each one that the judge knows.
        name: of the judge.

    Returns:
        `<name>_similarity` (B,) in [-1, 1] and `<name>_hit` (B,) 0 or 1; NaN for silent clips.
    """
    index = {name: i for i, name in enumerate(judge.labels)}
    wanted = torch.tensor([index[label] for label in labels], device=wave.device)
    silent, heard = _without_silence(wave)
    embedding = _batched(lambda w: judge.embed(w, sample_rate), heard)
    vectors = normalize(judge.class_vectors.detach(), dim=-1)[wanted]
    similarity = (embedding * vectors).sum(-1)
    hit = (judge.logits(embedding).detach().argmax(-1) == wanted).to(similarity.dtype)
    return {
        f"{name}_similarity": similarity.masked_fill(silent, float("nan")),
        f"{name}_hit": hit.masked_fill(silent, float("nan")),
    }
