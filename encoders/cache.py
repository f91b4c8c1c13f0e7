"""Embeddings kept on disk, so that nothing is embedded twice.

An entry is keyed by kind and content (the text itself, or the bytes of the file) and belongs to one
encoder fingerprint, so a renamed file is found again and a changed file or encoder is not taken for
the old one. Entries live in shards that are written under a temporary name and then renamed: any
number of processes may fill one cache, and an interrupted one goes on from its last shard.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from encoders.bank import read_mono
from encoders.base import Encoder, EncoderError, check_wave
from encoders.preprocess import tile


class EmbeddingCache:
    """Embeds texts, recordings and pictures through a folder of earlier results.

    Args:
        folder: where caches are; this encoder's is `folder/<name>-<fingerprint>`.
        encoder: embeds what is not there yet.
        say: takes a line of progress, every `every_s` seconds.
        batch: items embedded at once.
        every_s: seconds between shards, and between lines of progress.
        readers: threads that read and decode files.
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: Encoder,
        say: Callable[[str], None] | None = None,
        batch: int = 32,
        every_s: float = 10.0,
        readers: int = 2,
    ):
        self.encoder, self.say, self.batch, self.every_s = encoder, say, batch, every_s
        self.folder = Path(folder) / f"{encoder.name}-{encoder.fingerprint}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.readers = readers
        self._known: dict[str, Tensor] = {}
        self._fresh: dict[str, Tensor] = {}
        self._shards: set[str] = set()

    def text(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts: (Q, D) on the CPU."""
        return self._embed("text", list(texts), lambda text: text.encode(), self._texts)

    def audio(self, paths: Sequence[str | Path]) -> Tensor:
        """Embed n whole recordings: (n, D) on the CPU; raises EncoderError naming a bad file."""
        return self._embed("audio", [str(path) for path in paths], _read, self._sounds)

    def image(self, paths: Sequence[str | Path]) -> Tensor:
        """Embed n pictures: (n, D) on the CPU; raises EncoderError naming a bad file."""
        return self._embed("image", [str(path) for path in paths], _read, self._pictures)

    @torch.no_grad()
    def _embed(
        self,
        kind: str,
        items: list[str],
        content: Callable[[str], bytes],
        embed: Callable[[list[str]], Iterator[tuple[list[str], Tensor]]],
    ) -> Tensor:
        if not items:
            return torch.zeros(0, self.encoder.dim)
        unique = list(dict.fromkeys(items))
        with ThreadPoolExecutor(self.readers) as pool:
            key = dict(zip(unique, pool.map(lambda i: _key(kind, content(i)), unique), strict=True))
        self._refresh()
        missing = list(
            {key[item]: item for item in unique if key[item] not in self._known}.values()
        )
        spoke, count = time.monotonic(), 0
        try:
            for part, vectors in embed(missing):
                for item, vector in zip(part, vectors.float().cpu(), strict=True):
                    self._known[key[item]] = self._fresh[key[item]] = vector
                count += len(part)
                if time.monotonic() - spoke > self.every_s:
                    self._write()
                    if self.say:
                        self.say(f"embed: {kind} {count}/{len(missing)}")
                    spoke = time.monotonic()
        finally:
            self._write()
        return torch.stack([self._known[key[item]] for item in items])

    def _texts(self, texts: list[str]) -> Iterator[tuple[list[str], Tensor]]:
        for first in range(0, len(texts), self.batch):
            part = texts[first : first + self.batch]
            yield part, self.encoder.embed_text(part)

    def _pictures(self, paths: list[str]) -> Iterator[tuple[list[str], Tensor]]:
        for first in range(0, len(paths), self.batch):
            part = paths[first : first + self.batch]
            yield part, self.encoder.embed_image(part)

    def _sounds(self, paths: list[str]) -> Iterator[tuple[list[str], Tensor]]:
        """Decode ahead in threads; recordings of one length are embedded together."""
        rate, window = self.encoder.sample_rate, self.encoder.window
        parts = [paths[i : i + self.batch] for i in range(0, len(paths), self.batch)]

        def read(path: str) -> Tensor:
            wave = read_mono(path, rate)[None]
            try:
                check_wave(wave, rate)
            except EncoderError as error:
                raise EncoderError(f"{path}: {error}") from None
            return tile(wave, window)

        with ThreadPoolExecutor(self.readers) as pool:
            ahead: list[list[Future]] = (
                [[pool.submit(read, path) for path in parts[0]]] if parts else []
            )
            for k, part in enumerate(parts):
                if k + 1 < len(parts):
                    ahead.append([pool.submit(read, path) for path in parts[k + 1]])
                by_length: dict[int, list[tuple[str, Tensor]]] = {}
                for path, future in zip(part, ahead.pop(0), strict=True):
                    wave = future.result()
                    by_length.setdefault(wave.shape[-1], []).append((path, wave))
                for alike in by_length.values():
                    names, waves = zip(*alike, strict=True)
                    yield list(names), self.encoder.embed_audio(torch.cat(waves), rate)

    def _refresh(self) -> None:
        """Read the shards that other processes, or earlier ones, have written."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._shards:
                continue
            try:
                with safe_open(path, framework="pt") as file:
                    keys = json.loads(file.metadata()["keys"])
                    vectors = file.get_tensor("vectors")
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise EncoderError(f"{path} is damaged ({error}); remove it") from None
            self._known.update(zip(keys, vectors, strict=True))
            self._shards.add(path.name)

    def _write(self) -> None:
        """Put the new entries into a shard of their own."""
        if not self._fresh:
            return
        name = f"{uuid.uuid4().hex}.safetensors"
        temporary = self.folder / f".{name}.tmp"
        keys, vectors = list(self._fresh), torch.stack(list(self._fresh.values()))
        save_file({"vectors": vectors}, temporary, {"keys": json.dumps(keys)})
        os.replace(temporary, self.folder / name)
        self._shards.add(name)
        self._fresh.clear()


def _key(kind: str, content: bytes) -> str:
    return hashlib.sha256(f"{kind}:".encode() + content).hexdigest()[:32]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror})") from None
