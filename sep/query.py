"""Queries of any kind, or several at once, as one unit vector."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.base import Encoder, EncoderError
from sep import audio as recording
from sep.audio import SUFFIXES as AUDIO_SUFFIXES
from sep.container import SUFFIXES as CONTAINERS
from sep.errors import QueryError

TEMPLATES = ("{}", "the sound of {}")  # a text is the mean of its wordings
KINDS = ("text", "audio", "image")
NEGATIVE_WEIGHT = 0.5
SHORTEST_S = 0.05
LONGEST_S = 300.0  # of an example in a file; all of it is in memory
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def fuse(vectors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mix queries as in query mix-up: normalise(sum_q w_q v_q).

    Args:
        vectors: (..., Q, D), unit norm.
        weights: (..., Q), all 1 by default; only their ratios matter.

    Returns:
        (..., D), unit norm.
    """
    if weights is not None:
        vectors = vectors * weights[..., None]
    return torch.nn.functional.normalize(vectors.sum(-2), dim=-1)


def subtract(query: Tensor, negative: Tensor, weight: float = NEGATIVE_WEIGHT) -> Tensor:
    """Turn a query away from what is not wanted: normalise(q - w n).

    The direction of `away`, OmniSep's negative query, with w = a / (1 + a): its a = 0.5 is
    w = 1 / 3. Pure, so that training can apply the rule that inference applies.

    Args:
        query: (..., D), unit norm.
        negative: (..., D), unit norm.
        weight: w; 0 changes nothing.
    """
    return torch.nn.functional.normalize(query - weight * negative, dim=-1)


def away(query: Tensor, negative: Tensor, factor: float) -> Tensor:
    """The negative query of OmniSep (arXiv 2410.21269), (1 + a) q - a n, as long as it comes.

    For the published network (`Separator` takes it as `query`); others take `subtract`.

    Args:
        query: (..., D), unit norm.
        negative: (..., D), unit norm.
        factor: a; 0 changes nothing.
    """
    return (1 + factor) * query - factor * negative


def embed_query(
    encoder: Encoder,
    *,
    text: str | Sequence[str] | None = None,
    audio: Any = None,
    image: Any = None,
    negative: Any = None,
    weights: Mapping[str, float] | None = None,
    templates: Sequence[str] | None = None,
    embed_text: Callable[[Sequence[str]], Tensor] | None = None,
) -> Tensor:
    """Embed what is wanted, and what is not, as one vector (D,) of norm 1.

    Several queries of one kind are averaged; the kinds are mixed by `fuse` and the negative ones
    taken away by `subtract`.

    Args:
        encoder: the query encoder.
        text: a description, or several.
        audio: a recording of the sound, or a list of them: a path, or a pair (waveform (N,) or
            (C, N) as array or tensor, sample rate in Hz). Any length from 50 ms.
        image: a picture, or a list of them: a path, a PIL image or a tensor (3, height, width).
        negative: what is not wanted, or a list: a text, a path of a recording or a picture, or a
            pair as for `audio`.
        weights: weight by kind, `text`, `audio` or `image` (1 by default) and `negative` (0.5).
        templates: wordings that every text is put into in the place of `{}`, `TEMPLATES` by
            default; the mean of their embeddings is the text's.
        embed_text: embeds texts in place of the encoder, such as its `encoders.texts.TextCache`.

    Raises:
        QueryError: nothing asked for, or a query that cannot be used.
    """
    weights, templates = _checked(weights), _wordings(templates)
    embed = {
        "text": partial(_text, embed_text or encoder.embed_text, templates),
        "audio": partial(_audio, encoder),
        "image": partial(_image, encoder),
    }
    texts = list(text) if isinstance(text, tuple) else _listed(text)
    items = {"text": texts, "audio": _listed(audio), "image": _listed(image)}
    wanted = {kind: _each(embed[kind], items[kind]) for kind in KINDS if items[kind]}
    if not wanted:
        raise QueryError("nothing to look for: give a text, audio or image query")
    shares = torch.tensor([weights.get(kind, 1.0) for kind in wanted])
    if not shares.sum() > 0:
        raise QueryError("the weights of all given queries are 0; give one of them more")
    query = fuse(torch.stack([fuse(v) for v in wanted.values()]), shares)
    unwanted = [_each(embed[_kind(item)], [item]) for item in _listed(negative)]
    if unwanted:
        other, weight = fuse(torch.cat(unwanted)), weights.get("negative", NEGATIVE_WEIGHT)
        if (query - weight * other).norm() < 0.01:
            raise QueryError("the negative query cancels the query; change it or its weight")
        query = subtract(query, other, weight)
    return query


def _each(embed: Callable[[Any], Tensor], items: list[Any]) -> Tensor:
    """Unit vectors (Q, D) on the CPU of queries of one kind."""
    with torch.no_grad():
        return torch.stack([embed(item).float().cpu() for item in items])


def _text(embed: Callable[[Sequence[str]], Tensor], templates: Sequence[str], text: str) -> Tensor:
    plain = " ".join(str(text).encode(errors="replace").decode().split()).rstrip(".")
    if not plain:
        raise QueryError("the text query is empty; say what to look for, such as 'a dog barking'")
    try:
        return fuse(embed([wording.replace("{}", plain) for wording in templates]))
    except EncoderError as error:
        raise QueryError(f"text query '{plain}': {error}") from None


def _audio(encoder: Encoder, item: Any) -> Tensor:
    if isinstance(item, str | Path):
        check_length(item, recording.info(item).duration_s)
        name, (wave, rate) = str(item), recording.read(item)
    elif isinstance(item, tuple) and len(item) == 2:
        name, (wave, rate) = "audio query", item
        wave = torch.as_tensor(np.asarray(wave) if not isinstance(wave, Tensor) else wave).float()
    else:
        raise QueryError("an audio query is a path or a pair (waveform, sample rate in Hz)")
    if wave.ndim > 2 or rate <= 0 or wave.numel() == 0:
        raise QueryError(f"{name}: give a waveform (N,) or (C, N) and a rate above 0 Hz")
    if not wave.isfinite().all():
        raise QueryError(f"{name}: contains NaN or infinite samples; give another recording")
    if wave.shape[-1] < SHORTEST_S * rate:
        raise QueryError(
            f"{name}: lasts {1000 * wave.shape[-1] / rate:.1f} ms, too short to describe a sound; "
            f"give at least {1000 * SHORTEST_S:.0f} ms"
        )
    if not wave.abs().max() > 1e-6:
        raise QueryError(f"{name}: is silent; give a recording of the sound to look for")
    mono = recording.resample(loud_mono(wave), rate, encoder.sample_rate)
    try:
        return encoder.embed_audio(mono[None], encoder.sample_rate)[0]
    except EncoderError as error:
        raise QueryError(f"{name}: {error}") from None


def _image(encoder: Encoder, item: Any) -> Tensor:
    try:
        return encoder.embed_image([item])[0]
    except EncoderError as error:
        raise QueryError(f"image query: {error}") from None


def check_length(path: str | Path, seconds: float) -> None:
    """Refuse an example that is too long to be one sound.

    Raises:
        QueryError: longer than `LONGEST_S`.
    """
    if seconds > LONGEST_S:
        raise QueryError(
            f"{path}: lasts {seconds:.0f} s, too long for an example; "
            f"use --from and --to to give at most {LONGEST_S:.0f} s"
        )


def loud_mono(wave: Tensor) -> Tensor:
    """The mid signal (N,) of (C, N), or the loudest channel where the channels cancel."""
    if wave.ndim == 1:
        return wave
    mid, power = wave.mean(0), wave.square().mean(-1)
    return mid if mid.square().mean() >= 0.01 * power.mean() else wave[power.argmax()]


def _kind(item: Any) -> str:
    """What an unwanted item is: a file by its suffix, a pair is sound, other strings are text."""
    if isinstance(item, str | Path):
        suffix = Path(item).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return "image"
        known = suffix in (*AUDIO_SUFFIXES, *CONTAINERS)
        is_file = isinstance(item, Path) or known or os.path.isfile(item)
        return "audio" if is_file else "text"
    return "audio" if isinstance(item, tuple) else "image"


def _listed(items: Any) -> list[Any]:
    if items is None:
        return []
    return list(items) if isinstance(items, list) else [items]


def _checked(weights: Mapping[str, float] | None) -> Mapping[str, float]:
    known = (*KINDS, "negative")
    if not isinstance(weights or {}, Mapping):
        raise QueryError(f"weights {weights!r:.40}: give a mapping such as {{'text': 2}}")
    for kind, weight in (weights or {}).items():
        if kind not in known:
            raise QueryError(f"weight '{kind}' is unknown; use {', '.join(known)}")
        if not isinstance(weight, Real) or not 0 <= weight < float("inf"):
            raise QueryError(f"weight {kind}={weight} must be 0 or more")
    return weights or {}


def _wordings(templates: Sequence[str] | None) -> Sequence[str]:
    for template in templates or ():
        if "{}" not in template:
            raise QueryError(f"template '{template}' has no {{}} where the text would go")
    return templates or TEMPLATES
