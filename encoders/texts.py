"""Embeddings of texts kept in the user's cache, so that the same words need no text tower again.

`encoders.cache` is for data sets, whose many items share files and whose damage is reported; here
every call has a small file of its own, and whatever is wrong with it, the texts are embedded anew.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.base import Encoder

VARIABLE = "SEP_CACHE"
LONGEST = (
    250  # bytes of a text that is kept; a longer one may be cut, which is to be said each time
)


class TextCache:
    """Embeds texts as `encoder.embed_text` does, through files of earlier results.

    Any number of processes may share the folder: a file appears under its name when it is
    complete. Where it cannot be written or read, nothing is kept.

    Args:
        encoder: embeds what is not there yet; its weights stay as they are.
        folder: where caches are, `user_folder()` by default; this encoder's is
            `folder/texts/<name>-<fingerprint>`.
    """

    def __init__(self, encoder: Encoder, folder: str | Path | None = None):
        self.encoder = encoder
        self.home = user_folder() if folder is None else Path(folder)

    @cached_property
    def folder(self) -> Path | None:
        """Where this encoder's texts are."""
        name = f"{self.encoder.name}-{self.encoder.fingerprint}"
        return self.home and self.home / "texts" / name

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts as (Q, D); raises as `encoder.embed_text`."""
        long = any(len(text.encode(errors="replace")) > LONGEST for text in texts)
        if long or self.folder is None:
            return self.encoder.embed_text(texts)
        path = self.folder / hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:32]
        vectors = self._read(path, len(texts))
        if vectors is None:
            vectors = self.encoder.embed_text(texts)
            _write(path, vectors)
        return vectors

    def _read(self, path: Path, count: int) -> Tensor | None:
        """Unit vectors (count, D), or None where the file is missing or damaged."""
        try:
            vectors = np.fromfile(path, "<f4").reshape(count, self.encoder.dim)
        except (OSError, ValueError):
            return None
        norms = np.linalg.norm(vectors, axis=-1)
        return torch.from_numpy(vectors) if np.allclose(norms, 1, atol=1e-3) else None


def user_folder() -> Path | None:
    """Where the user's caches are; None where there is no home and no variable that names one.

    The variable SEP_CACHE, or `sep` in XDG_CACHE_HOME or ~/.cache.
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sep"
    except RuntimeError:
        return None


def _write(path: Path, vectors: Tensor) -> None:
    """Write a file under a temporary name and rename it; no room or no permission is no fault."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with open(number, "wb") as file:
                file.write(vectors.detach().cpu().numpy().astype("<f4").tobytes())
            os.replace(name, path)
        finally:
            with suppress(OSError):
                os.unlink(name)
