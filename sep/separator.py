"""The Python face: a recording and a query in, that sound and everything else out."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.base import Encoder, EncoderError
from sep import audio as recording
from sep import hub
from sep.chunk import Chunking, OverlapAdd, overlap_add
from sep.device import resolve
from sep.errors import AudioFileError, ModelError, QueryError, SepError
from sep.model import QueryNet
from sep.query import embed_query, loud_mono
from sep.stream import Meter, Scan, on_grid, paired, peak_of

SEGMENT_FRAMES = 1024  # 16.4 s at 16 kHz and a hop of 256
CONTEXT_FRAMES = 64
FILE_BLOCK = 2**17  # samples a channel read at once
Waveform = Tensor | np.ndarray


class Separation(NamedTuple):
    """What `Separator.separate` returns; N, C and the kind of array are those of the input.

    Attributes:
        target: (N,) or (C, N), the sound asked for.
        residual: mixture - target, everything else.
        sample_rate: of both, in Hz: the input's.
        mask: (F, T) float16 in [0, 1], what was kept of each bin at the model's rate.
        similarity: cosine of the target and the query, NaN for silence.
        mixture_similarity: cosine of the mixture and the query, NaN for silence.
    """

    target: Waveform
    residual: Waveform
    sample_rate: int
    mask: Tensor
    similarity: float
    mixture_similarity: float


class FileSeparation(NamedTuple):
    """What `Separator.separate_file` returns.

    Attributes:
        sample_rate, channels, frames: of the recording and its parts.
        similarity: cosine of the target and the query, NaN for silence.
        mixture_similarity: cosine of the mixture and the query, NaN for silence.
        level_db: level of the target under the mixture; -inf where nothing was found.
        sharpness: factor on the mask logits that was used, one of `sharpness_series`.
    """

    sample_rate: int
    channels: int
    frames: int
    similarity: float
    mixture_similarity: float
    level_db: float
    sharpness: float


class Separator:
    """A trained model with its query encoder.

    The network runs at its own rate (16 kHz). Its target is brought to the input's rate and the
    residual is the input minus that, so what lies above half the model's rate stays in the
    residual. One mask, from the mid signal, serves all channels, so the stereo image is kept.

    Args:
        model: the separator network.
        encoder: embeds the queries and measures how well the result fits them.
        device: where both compute.
        chunking: how long recordings are cut, in samples at the model's rate.

    Raises:
        SepError: a chunking that is not aligned to the hop of the spectrogram.
    """

    def __init__(
        self,
        model: QueryNet,
        encoder: Encoder,
        device: str | torch.device = "cpu",
        chunking: Chunking | None = None,
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.encoder = encoder.to(self.device)
        hop = model.spectrogram.hop
        self.chunking = chunking or Chunking(
            segment=SEGMENT_FRAMES * hop - 1,
            context=CONTEXT_FRAMES * hop,
            align=hop * 2**model.levels,
            batch=4 if self.device.type == "cuda" else 1,
        )
        if self.chunking.align % hop:
            raise SepError(f"chunks must start at multiples of the hop: align={hop} or a multiple")

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None, device: str = "auto") -> "Separator":
        """Load a model folder: config.json, model.safetensors and encoder/.

        Args:
            folder: by default what `default_model` finds.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            ModelError: no such folder, or one that is damaged.
            SepError: the device is unknown or absent.
        """
        folder, place = Path(folder) if folder else default_model(), resolve(device)
        if not folder.is_dir():
            raise ModelError(f"{folder}: no such model folder; train one or pass --model FOLDER")
        try:
            encoder = hub.load_encoder(folder, place)
        except EncoderError as error:
            raise ModelError(f"{folder}: its query encoder cannot be loaded: {error}") from None
        model = hub.from_pretrained(folder, place)
        if encoder.dim != model.config["embed_dim"]:
            raise ModelError(
                f"{folder}: the encoder gives {encoder.dim} numbers and the model takes "
                f"{model.config['embed_dim']}; copy or train the model again"
            )
        return cls(model, encoder, place)

    def query(self, **queries: Any) -> Tensor:
        """Embed a query as (D,); arguments and errors as in `sep.query.embed_query`."""
        return embed_query(self.encoder, **queries)

    @torch.no_grad()
    def separate(
        self,
        audio: str | Path | Waveform,
        sample_rate: int | None = None,
        *,
        text: Any = None,
        audio_query: Any = None,
        image: Any = None,
        negative: Any = None,
        weights: Mapping[str, float] | None = None,
        candidates: int = 1,
        query: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Separation:
        """Separate the sound that the query names.

        Args:
            audio: a path, or floating-point samples (N,) or (C, N) as array or tensor.
            sample_rate: of an array or tensor, in Hz.
            text: what to look for in words; this and the next four as in `sep.query.embed_query`.
            audio_query: a recording of such a sound.
            image: a picture of what makes it.
            negative: what is not wanted.
            weights: weight by kind of query.
            candidates: how many masks to try, from the network's own to sharper and softer ones;
                the result that is most similar to the query is returned.
            query: (D,) from `query`, in place of the five above, to embed it once for many files.
            progress: called with samples done and in all, at the model's rate.

        Raises:
            AudioFileError: a recording that cannot be used.
            QueryError: a query that cannot be used.
        """
        mixture, rate, restore = _load(audio, sample_rate)
        if candidates < 1:
            raise QueryError(f"candidates {candidates}: try at least 1 mask")
        if query is None:
            query = self.query(
                text=text, audio=audio_query, image=image, negative=negative, weights=weights
            )
        wave = recording.resample(mixture.float(), rate, self.model.sample_rate)
        guide = loud_mono(wave)
        rows = wave if len(wave) == 1 else torch.cat([guide[None], wave])
        heard: list[Tensor] = []
        masked = self._masked(query, sharpness_series(candidates), heard)
        results = overlap_add(masked, rows, self.chunking, self.device, progress)  # (R, K, N)
        results, logits = results.transpose(0, 1), self._stitched(heard, rows.shape[-1])
        scores = [self.similarity(result[0], query) for result in results]
        best = max(range(candidates), key=lambda k: -1 if math.isnan(scores[k]) else scores[k])
        target = recording.resample(
            results[best][-len(wave) :], self.model.sample_rate, rate, length=mixture.shape[-1]
        )
        target = on_grid(target, peak_of(mixture)).to(mixture.dtype)
        return Separation(
            target=restore(target),
            residual=restore(mixture - target),
            sample_rate=rate,
            mask=self._linear_mask(logits, sharpness_series(candidates)[best]),
            similarity=scores[best],
            mixture_similarity=self.similarity(guide, query),
        )

    @torch.no_grad()
    def separate_file(
        self,
        source: str | Path,
        target: str | Path,
        residual: str | Path | None = None,
        *,
        text: Any = None,
        audio_query: Any = None,
        image: Any = None,
        negative: Any = None,
        weights: Mapping[str, float] | None = None,
        candidates: int = 1,
        query: Tensor | None = None,
        subtype: str | None = None,
        clip: str = "none",
        progress: Callable[[int, int], None] | None = None,
    ) -> FileSeparation:
        """Separate a file of any length into files, in memory that does not grow with it.

        The recording is read once for its peak and whether it is sound, and once to be separated;
        with several candidates or `clip="rescale"` once more before, to choose and to measure. The
        parts appear under their names when both are complete. In an integer subtype target and
        residual add up to the recording sample by sample, else within a rounding of float32.

        Args:
            source: recording.
            target, residual: files to write; the suffix names the container.
            text, audio_query, image, negative, weights, candidates, query: as in `separate`.
            progress: called with samples done and in all, at the recording's rate.
            subtype: of libsndfile; by default the recording's, or what comes nearest to it.
            clip: see `sep.audio.apply_clip`; one gain for both parts.

        Raises:
            AudioFileError: a recording that cannot be used, a file that cannot be written.
            QueryError: a query that cannot be used.
        """
        if candidates < 1:
            raise QueryError(f"candidates {candidates}: try at least 1 mask")
        recording.apply_clip([], clip)  # refuses an unknown rule before anything is read
        names = [Path(name) for name in (target, residual) if name is not None]
        for path in names:
            if path.exists() and Path(source).exists() and path.samefile(source):
                raise AudioFileError(
                    f"{source}: would be overwritten by its own result; choose another output"
                )
        head, scan = recording.info(source), Scan()
        for block in recording.blocks(source):
            scan.push(block)
        if query is None:
            query = self.query(
                text=text, audio=audio_query, image=image, negative=negative, weights=weights
            )
        series, gain = sharpness_series(candidates), 1.0
        if candidates > 1 or clip == "rescale":
            series, gain = self._choose(source, head, scan, query, series, clip)
        subtype = subtype or recording.kept_subtype(head.subtype, target)
        meters = [Meter(self.encoder, self.model.sample_rate, self.device) for _ in range(2)]
        energy = [0.0, 0.0]
        with ExitStack() as stack:
            writers = [
                stack.enter_context(
                    recording.Writer(name, head.sample_rate, head.channels, subtype)
                )
                for name in names
            ]
            done = 0
            for mixture, parts in self._blocks(source, head, scan, query, series, meters):
                part = parts[0]
                energy[0] += float(mixture.double().square().sum())
                energy[1] += float(part.double().square().sum())
                pair = [part, mixture - part]
                if clip == "none":
                    pair = recording.exact_parts(mixture, part, subtype)
                elif clip == "clamp":
                    pair = recording.apply_clip(pair, clip)
                else:
                    pair = [wave / gain for wave in pair]
                for writer, wave in zip(writers, pair, strict=False):
                    writer.write(wave)
                done += mixture.shape[-1]
                if progress:
                    progress(done, scan.frames)
            for writer in writers:
                writer.finish()
        level = energy[1] / energy[0] if energy[0] else 0.0
        return FileSeparation(
            sample_rate=head.sample_rate,
            channels=head.channels,
            frames=scan.frames,
            similarity=meters[1].similarity(query),
            mixture_similarity=meters[0].similarity(query),
            level_db=10 * math.log10(level) if level else -math.inf,
            sharpness=series[0],
        )

    @torch.no_grad()
    def stream(
        self,
        blocks: Iterable[Waveform],
        sample_rate: int,
        *,
        query: Tensor,
        sharpness: float = 1.0,
        peak: float = 1.0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Separate sound while it arrives: an iterator of target and residual, both (C, m).

        What comes out is behind by one segment of `chunking`; the parts add up to what came in, in
        order, and memory does not grow.

        Args:
            blocks: floating-point samples (C, n) or (n,), all with the same C.
            sample_rate: in Hz.
            query: (D,) from `query`.
            sharpness: factor on the mask logits; above 1 masks come nearer to 0 or 1.
            peak: largest magnitude to come; the parts are rounded to 24 bits below it, so that
                they add up exactly.

        Raises:
            AudioFileError: samples that cannot be used.
        """
        scan = Scan()
        scan.peak = peak
        waves = (_load(block, sample_rate)[0].float() for block in blocks)
        for mixture, parts in self._separated(waves, sample_rate, scan, query, [sharpness]):
            yield parts[0], mixture - parts[0]

    def _choose(
        self,
        source: str | Path,
        head: recording.AudioInfo,
        scan: Scan,
        query: Tensor,
        series: list[float],
        clip: str,
    ) -> tuple[list[float], float]:
        """The sharpness whose target is most similar to the query, and the gain for `rescale`."""
        meters = [Meter(self.encoder, self.model.sample_rate, self.device)]
        meters += [Meter(self.encoder, self.model.sample_rate, self.device) for _ in series]
        peaks = [1.0 for _ in series]
        for mixture, parts in self._blocks(source, head, scan, query, series, meters):
            for k, part in enumerate(parts):
                peaks[k] = max(peaks[k], peak_of(part), peak_of(mixture - part))
        scores = [meter.similarity(query) for meter in meters[1:]]
        best = max(range(len(series)), key=lambda k: -1 if math.isnan(scores[k]) else scores[k])
        return [series[best]], peaks[best] if clip == "rescale" else 1.0

    def _blocks(
        self,
        source: str | Path,
        head: recording.AudioInfo,
        scan: Scan,
        query: Tensor,
        series: list[float],
        meters: list[Meter],
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """`_separated` of a file."""
        blocks = recording.blocks(source, size=FILE_BLOCK)
        return self._separated(blocks, head.sample_rate, scan, query, series, meters)

    def _separated(
        self,
        blocks: Iterable[Tensor],
        rate: int,
        scan: Scan,
        query: Tensor,
        series: list[float],
        meters: list[Meter] | None = None,
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Mixture (C, m) and a target (C, m) for each sharpness, block by block.

        `meters` hear the mixture and the targets at the model's rate, before they are resampled.
        """
        own = self.model.sample_rate
        adder = OverlapAdd(self._masked(query, series), self.chunking, self.device)
        waiting: deque[Tensor] = deque()
        down: recording.Resampler | None = None
        ups: list[recording.Resampler] = []
        ready = [torch.zeros(0) for _ in series]
        missing = object()
        iterator = iter(blocks)
        block = next(iterator, missing)
        while block is not missing:
            following = next(iterator, missing)
            last = following is missing
            if down is None:
                channels = len(block)
                down = recording.Resampler(channels, rate, own)
                ups = [recording.Resampler(channels, own, rate) for _ in series]
                ready = [torch.zeros(channels, 0) for _ in series]
            if len(block) != channels:
                raise AudioFileError(f"audio: {len(block)} channels after {channels}; keep to one")
            waiting.append(block)
            wave = down.push(block, last)
            guide = scan.guide(wave)
            rows = wave if channels == 1 else torch.cat([guide[None], wave])
            results = adder.push(rows)  # (R, K, m)
            if last:
                rest = adder.finish()
                results = torch.cat([results, rest], -1) if results.shape[-1] else rest
            if meters:
                meters[0].push(guide)
            for k, up in enumerate(ups):
                part = (
                    results[-channels:, k] if results.dim() == 3 else results.new_zeros(channels, 0)
                )
                if meters:
                    meters[k + 1].push(results[0, k] if results.dim() == 3 else part[0])
                ready[k] = torch.cat([ready[k], up.push(part, last)], -1)
            block = following
            yield from paired(waiting, ready, scan.peak, last)

    @torch.no_grad()
    def similarity(self, wave: Tensor, query: Tensor) -> float:
        """Cosine of a sound (N,) at the model's rate and a query (D,); NaN for silence."""
        meter = Meter(self.encoder, self.model.sample_rate, self.device)
        meter.push(wave.cpu())
        return meter.similarity(query)

    def _masked(
        self, query: Tensor, sharpness: list[float], heard: list[Tensor] | None = None
    ) -> Callable[[Tensor], Tensor]:
        """A function that masks segments (B, R, n), the first row being what the network hears.

        It returns (B, R, K, n), once for each sharpness, and adds the mask logits (H, T) of each
        segment to `heard`, where there is such a list, in float16.
        """
        grid, query = self.model.spectrogram, query.to(self.device)

        def masked(segments: Tensor) -> Tensor:
            spectra = grid.stft(segments)
            logits = self.model.logits(spectra[:, 0].abs(), query)
            results = [
                grid.istft(
                    spectra * grid.unwarp(torch.sigmoid(s * logits))[:, None], segments.shape[-1]
                )
                for s in sharpness
            ]
            if heard is not None:
                heard.extend(logits.half().cpu())
            return torch.stack(results, dim=2)

        return masked

    def _stitched(self, heard: list[Tensor], length: int) -> Tensor:
        """Logits (H, T) of a whole recording from those of its segments, cut amid the fades."""
        hop, chunking = self.model.spectrogram.hop, self.chunking
        starts = [start // hop for start in chunking.starts(length)]
        cut = (chunking.context + chunking.shared // 2) // hop
        parts = []
        for start, following, logits in zip(starts, [*starts[1:], None], heard, strict=True):
            first = 0 if start == 0 else cut
            last = None if following is None else following - start + cut
            parts.append(logits[:, first:last])
        return torch.cat(parts, dim=-1)

    def _linear_mask(self, logits: Tensor, sharpness: float) -> Tensor:
        """Mask (F, T) in float16 of logits (H, T), a stretch of time at once."""
        unwarp = self.model.spectrogram.unwarp
        parts = logits.split(SEGMENT_FRAMES, dim=-1)
        masks = (unwarp(torch.sigmoid(sharpness * p.to(self.device).float())) for p in parts)
        return torch.cat([mask.half().cpu() for mask in masks], dim=-1)


def sharpness_series(candidates: int) -> list[float]:
    """Factors on the mask logits: 1, 2, 0.5, 4, 0.25, ...; above 1 masks come nearer to 0 or 1."""
    return [2.0 ** ((k + 1) // 2 * (1 if k % 2 else -1)) for k in range(candidates)]


def default_model() -> Path:
    """The model used when none is named.

    The environment variable SEP_MODEL, or else the newest model that a recipe has trained below
    the working directory, or else below this checkout; tuned by RL rather than only supervised.

    Raises:
        ModelError: there is none.
    """
    if named := os.environ.get("SEP_MODEL"):
        return Path(named)
    for root in (Path.cwd(), Path(__file__).resolve().parents[1]):
        for stage in ("rl", "supervised"):
            places = (f"{egs}exp/*/{stage}/best/config.json" for egs in ("egs/*/", ""))
            found = [path for place in places for path in root.glob(place)]
            if found:
                return max(found, key=lambda path: path.stat().st_mtime).parent
    raise ModelError("no model found; run egs/mini_sounds/run.sh to train one or pass --model")


def _load(
    audio: str | Path | Waveform, sample_rate: int | None
) -> tuple[Tensor, int, Callable[[Tensor], Waveform]]:
    """The recording as (C, N) on the CPU, its rate, and how to give results the input's form."""
    if isinstance(audio, str | Path):
        return *recording.read(audio), lambda wave: wave
    if not isinstance(audio, Tensor | np.ndarray):
        raise AudioFileError("audio: give a path, a numpy array or a tensor")
    if sample_rate is None or sample_rate <= 0:
        raise AudioFileError("audio: an array has no rate of its own; pass sample_rate in Hz")
    wave = torch.as_tensor(audio).detach().cpu()
    if not wave.is_floating_point():
        raise AudioFileError(f"audio: {wave.dtype} samples; scale them to floats in [-1, 1]")
    if wave.ndim not in (1, 2) or wave.numel() == 0:
        raise AudioFileError(f"audio: shape {tuple(wave.shape)}; give samples (N,) or (C, N)")
    if wave.ndim == 2 and wave.shape[0] > max(32, wave.shape[1]):
        raise AudioFileError(f"audio: shape {tuple(wave.shape)} looks like (N, C); transpose it")
    if not wave.isfinite().all():
        raise AudioFileError("audio: contains NaN or infinite samples; repair the recording")

    def restore(result: Tensor) -> Waveform:
        result = result.reshape(wave.shape)
        return result.to(audio.device) if isinstance(audio, Tensor) else result.numpy()

    return wave.reshape(-1, wave.shape[-1]), int(sample_rate), restore
