"""The Python face: a recording and a query in, that sound and everything else out."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.base import Encoder, EncoderError
from encoders.texts import TextCache
from sep import audio as recording
from sep import hub
from sep.candidates import Reading, Variant, alone, blend, variants
from sep.chunk import Chunking, OverlapAdd, live, overlap_add
from sep.device import resolve
from sep.errors import AudioFileError, ModelError, QueryError, SepError
from sep.feedback import window_of
from sep.masking import Masking
from sep.model import QueryNet
from sep.parts import clipped, outputs
from sep.query import embed_query, loud_mono
from sep.results import FileSeparation, FileSplit, Separation, Split, Waveform
from sep.stream import Both, Ear, Meter, Scan, hear, on_grid, peak_of, separated
from sep.waveform import load

SHIPPED = Path(__file__).resolve().parent / "weights" / "small"
SEGMENT_FRAMES = 2048  # 33 s at 16 kHz and a hop of 256
CONTEXT_FRAMES = 384  # what is further away changes a target by less than -60 dB, bfloat16 or not
OVERLAP = 0.05
FILE_BLOCK = 2**17  # samples a channel read at once
LAG_S = 4.3  # of a stream; shorter ones cost signal
ASKED = {"text", "audio", "image", "negative", "weights", "templates"}  # in a mapping
ALIASES = {"audio_query": "audio"}  # as `separate` calls it
Query = str | Mapping[str, Any] | Tensor  # a text, arguments of `query`, or what it returns


class Separator:
    """A trained model with its query encoder.

    The network runs at its own rate (16 kHz). Its target is brought to the input's rate and the
    residual is the input minus that, so what lies above half the model's rate stays in the
    residual. One mask, from the mid signal, serves all channels, so the stereo image is kept, or
    each channel has its own.

    Args:
        model: the separator network.
        encoder: embeds the queries and measures how well the result fits them.
        device: where both compute.
        chunking: how long recordings are cut, in samples at the model's rate.
        embed_text: embeds texts in place of the encoder, such as its `encoders.texts.TextCache`.
        each_channel: give every channel a mask of its own, by what is heard in it, for sounds that
            lie in different channels; stereo takes 2.4 times as long, as the mid is still heard.

    Raises:
        SepError: a chunking that is not aligned to the hop of the spectrogram.
    """

    def __init__(
        self,
        model: QueryNet,
        encoder: Encoder,
        device: str | torch.device = "cpu",
        chunking: Chunking | None = None,
        embed_text: Callable[[Sequence[str]], Tensor] | None = None,
        each_channel: bool = False,
    ):
        self.device, self.each_channel = torch.device(device), each_channel
        self.model = model.to(self.device).eval()
        self.encoder = encoder.to(self.device)
        self._listener = self.encoder.folded()  # for refining, in float32
        self.embed_text = embed_text or encoder.embed_text
        hop = model.spectrogram.hop
        self.chunking = chunking or Chunking(
            segment=SEGMENT_FRAMES * hop - 1,
            context=CONTEXT_FRAMES * hop,
            overlap=OVERLAP,
            align=hop * 2**model.levels,
            batch=None,
        )
        if self.chunking.align % hop:
            raise SepError(f"chunks must start at multiples of the hop: align={hop} or a multiple")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path | None = None, device: str = "auto", each_channel: bool = False
    ) -> "Separator":
        """Load a model folder: config.json, model.safetensors and encoder/.

        Texts are embedded through the user's cache where that spares a tower (`encoders.texts`).

        Args:
            folder: by default what `default_model` finds.
            device: auto, cpu, cuda, cuda:N or mps.
            each_channel: as of the class.

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
        texts = TextCache(encoder) if encoder.text_apart else None
        return cls(model, encoder, place, embed_text=texts, each_channel=each_channel)

    @property
    def refines(self) -> bool:
        """Whether files and waveforms are refined unless told otherwise."""
        return self.model.remembers

    def query(self, **queries: Any) -> Tensor:
        """Embed a query as (D,); arguments and errors as in `sep.query.embed_query`."""
        return embed_query(self.encoder, **queries, embed_text=self.embed_text)

    def queries(self, queries: Sequence[Query]) -> Tensor:
        """Embed the queries of several sounds as (Q, D).

        Args:
            queries: for each sound a text, a mapping with arguments of `query`, or a vector (D,).

        Raises:
            QueryError: none, or one that cannot be used.
        """
        if isinstance(queries, str) or not len(queries):
            raise QueryError("queries: give a list with one query for each sound")
        return torch.stack([self._vector(query) for query in queries])

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
        refine: bool | None = None,
        sharpness: float = 1.0,
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
            candidates: how many readings of the network to try (`sep.candidates`); the more similar
                to the query a result, the more it weighs.
            refine: separate twice, by what the query may mean in this recording (`sep.context`),
                then by what it found around each moment, too (`sep.feedback`), less what else the
                model knows (`sep.rivals`). None does so where the model has a memory, as the one
                that ships; False is twice as fast.
            sharpness: factor on the mask logits; above 1 masks come nearer to 0 or 1.
            query: (D,) from `query`, in place of the five above, to embed it once for many files.
            progress: called with samples done and in all, at the model's rate.

        Raises:
            AudioFileError: a recording that cannot be used.
            QueryError: a query that cannot be used.
            OptionError: candidates or sharpness out of range.
        """
        asked = _asked(query, text, audio_query, image, negative, weights)
        made = self.split(
            audio,
            sample_rate,
            queries=[asked],
            candidates=candidates,
            refine=refine,
            sharpness=sharpness,
            progress=progress,
        )
        return Separation(
            target=made.targets[0],
            residual=made.residual,
            sample_rate=made.sample_rate,
            mask=made.masks[0],
            similarity=made.similarities[0],
            mixture_similarity=made.mixture_similarities[0],
        )

    @torch.no_grad()
    def split(
        self,
        audio: str | Path | Waveform,
        sample_rate: int | None = None,
        *,
        queries: Sequence[Query],
        candidates: int = 1,
        refine: bool | None = None,
        sharpness: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Split:
        """Separate several sounds at once; targets and residual add up to the recording.

        The network reads the recording once for all of them, and where their masks together
        exceed 1 they share the bin in proportion (`sep.masking.shared`).

        Args:
            audio, sample_rate, sharpness, progress: as in `separate`.
            queries: one for each sound, as in `Separator.queries`.
            candidates: as in `separate`, by the mean similarity of all sounds.
            refine: as in `separate`; similarities are still those to the queries themselves.

        Raises:
            AudioFileError: a recording that cannot be used.
            QueryError: a query that cannot be used.
        """
        mixture, rate, restore = load(audio, sample_rate)
        tried = variants(candidates, sharpness)
        vectors = self.queries(queries)
        wave = recording.resample(mixture.float(), rate, self.model.sample_rate)
        guide = loud_mono(wave)
        rows = wave if len(wave) == 1 else torch.cat([guide[None], wave])
        readings = [alone(v) for v in tried]
        masking = self._masking(vectors, readings, refine, keep=True)
        adder = self._adder(masking)
        results = overlap_add(adder, rows, progress)  # (R, K, Q, N)
        reading = alone(tried[0])
        if len(tried) > 1:
            reading = blend(tried, [self._similarities(s, vectors) for s in results[0]])
        shares = torch.tensor([weight for weight, _ in reading])
        results = torch.einsum("k,rkqn->rqn", shares, results)
        targets, residual = [], mixture
        for sound in results[-len(wave) :].unbind(1):
            target = recording.resample(
                sound, self.model.sample_rate, rate, length=mixture.shape[-1]
            )
            target = on_grid(target, peak_of(mixture)).to(mixture.dtype)
            targets.append(restore(target))
            residual = residual - target
        hop = self.model.spectrogram.hop
        seams = [(start // hop, first // hop) for start, first in adder.seams]
        return Split(
            targets=targets,
            residual=restore(residual),
            sample_rate=rate,
            masks=masking.masks(seams, reading),
            similarities=self._similarities(results[0], vectors),
            mixture_similarities=[self.similarity(guide, v) for v in vectors],
        )

    def separate_file(
        self,
        source: str | Path,
        target: str | Path | None,
        residual: str | Path | None = None,
        *,
        text: Any = None,
        audio_query: Any = None,
        image: Any = None,
        negative: Any = None,
        weights: Mapping[str, float] | None = None,
        candidates: int = 1,
        refine: bool | None = None,
        sharpness: float = 1.0,
        query: Tensor | None = None,
        subtype: str | None = None,
        clip: str = "none",
        progress: Callable[[int, int], None] | None = None,
    ) -> FileSeparation:
        """Separate a file of any length into files, in memory that does not grow with it.

        Args:
            source: recording.
            target, residual: files to write, None leaves one out; the suffix names the container.
            text, audio_query, image, negative, weights, candidates, refine, sharpness, query: as
                in `separate`.
            subtype, clip, progress: as in `split_file`.

        Raises:
            AudioFileError: a recording that cannot be used, a file that cannot be written.
            QueryError: a query that cannot be used.
        """
        asked = _asked(query, text, audio_query, image, negative, weights)
        made = self.split_file(
            source,
            None if target is None else [target],
            residual,
            queries=[asked],
            candidates=candidates,
            refine=refine,
            sharpness=sharpness,
            subtype=subtype,
            clip=clip,
            progress=progress,
        )
        return FileSeparation(
            sample_rate=made.sample_rate,
            channels=made.channels,
            frames=made.frames,
            similarity=made.similarities[0],
            mixture_similarity=made.mixture_similarities[0],
            level_db=made.levels_db[0],
            weights=made.weights,
        )

    @torch.no_grad()
    def split_file(
        self,
        source: str | Path,
        targets: Sequence[str | Path] | None,
        residual: str | Path | None = None,
        *,
        queries: Sequence[Query],
        candidates: int = 1,
        refine: bool | None = None,
        sharpness: float = 1.0,
        subtype: str | None = None,
        clip: str = "none",
        progress: Callable[[int, int], None] | None = None,
        ears: Callable[[int], Sequence[Ear]] | None = None,
    ) -> FileSplit:
        """Separate several sounds of a file of any length into files, as `split` does.

        The recording is read once for its peak and whether it is sound, and once to be separated;
        once more before to weigh several candidates, and once to measure for `clip="rescale"`. The
        parts appear under their names when all are complete. Targets and residual add up to the
        recording exactly in 8 to 24 bit, within a rounding of float32 otherwise.

        Args:
            source: recording.
            targets: a file for each query, None to write the residual alone.
            residual: file for everything else, or None.
            queries, candidates, refine, sharpness: as in `split`.
            subtype: of libsndfile; by default the recording's, or what comes nearest to it.
            clip: see `sep.audio.apply_clip`; one gain for all parts.
            progress: called with samples done and in all, at the recording's rate.
            ears: called with the recording's length in samples at the model's rate; returns 1 + Q
                listeners to the mixture and the targets at that rate.

        Raises:
            AudioFileError: a recording that cannot be used, a file that cannot be written.
            QueryError: a query that cannot be used.
        """
        tried = variants(candidates, sharpness)
        recording.apply_clip([], clip)  # refuses an unknown rule before anything is read
        names = outputs(source, targets, residual, len(queries))
        head, scan = recording.info(source), Scan()
        subtype = subtype or recording.kept_subtype(head.subtype, next(filter(None, names)))
        subtype = subtype.upper()
        for name in filter(None, names):
            recording.form_of(name, head.sample_rate, head.channels, subtype)
        for block in recording.blocks(source):
            scan.push(block)
        vectors, reading, gain = self.queries(queries), alone(tried[0]), 1.0
        if clip == "none" and recording.limited(subtype) and scan.peak > 1:
            raise AudioFileError(
                f"{source}: peaks at {scan.peak:g}, more than {subtype} holds; "
                "use --subtype FLOAT, --clip rescale or --clip clamp"
            )
        if candidates > 1:
            reading = self._weigh(source, head, scan, vectors, tried, refine)
        if clip == "rescale":
            gain = self._peak(source, head, scan, vectors, reading, refine)
        meters = [self._meter() for _ in range(1 + len(vectors))]
        heard: list[Ear] = list(meters)
        if ears:
            length = round(scan.frames * self.model.sample_rate / head.sample_rate)
            heard = [Both(*pair) for pair in zip(meters, ears(length), strict=True)]
        energy = torch.zeros(1 + len(vectors), dtype=torch.float64)
        with ExitStack() as stack:
            writers = [
                None
                if name is None
                else stack.enter_context(
                    recording.Writer(name, head.sample_rate, head.channels, subtype, scan.frames)
                )
                for name in names
            ]
            done = 0
            for mixture, parts in self._pass(source, head, scan, vectors, reading, refine, heard):
                energy += torch.stack([x.double().square().sum() for x in (mixture, *parts)])
                waves = clipped(mixture, parts, clip, gain, subtype)
                for writer, wave in zip(writers, waves, strict=True):
                    if writer:
                        writer.write(wave)
                done += mixture.shape[-1]
                if progress:
                    progress(done, scan.frames)
            for writer in writers:
                if writer:
                    writer.finish()
        levels = (energy[1:] / energy[0]).tolist() if energy[0] else [0.0] * len(vectors)
        return FileSplit(
            sample_rate=head.sample_rate,
            channels=head.channels,
            frames=scan.frames,
            similarities=[
                meter.similarity(vector) for meter, vector in zip(meters[1:], vectors, strict=True)
            ],
            mixture_similarities=[meters[0].similarity(vector) for vector in vectors],
            levels_db=[10 * math.log10(level) if level else -math.inf for level in levels],
            weights=[weight for weight, _ in reading],
        )

    @torch.no_grad()
    def stream(
        self,
        blocks: Iterable[Waveform],
        sample_rate: int,
        *,
        query: Query,
        refine: bool = False,
        sharpness: float = 1.0,
        peak: float = 1.0,
        lag_s: float = LAG_S,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Separate sound while it arrives: an iterator of target and residual, both (C, m).

        A pair comes out for every block, in order, once `lag_s` and one block more have come in
        after it; the parts add up to it, and memory does not grow. With 4.3 s the target is as good
        as that of a file, with 2.2 s it was 0.1 dB SI-SDR worse, with 1 s 0.3 dB; all took less
        than 5 % of one core. For example, by blocks of a tenth of a second:

            blocks = soundfile.blocks("street.wav", 4_410, dtype="float32", always_2d=True)
            query = separator.query(text="a dog barking")
            for target, residual in separator.stream(
                (block.T for block in blocks), 44_100, query=query
            ):
                play(target)

        Args:
            blocks: floating-point samples (C, n) or (n,), all with the same C; those without any
                are left out.
            sample_rate: in Hz.
            query: a text, a mapping with arguments of `query`, or the vector that it returns.
            refine: as in `separate`, by what is heard within the lag; not unless asked for, as it
                takes more than twice the time.
            sharpness: factor on the mask logits; above 1 masks come nearer to 0 or 1.
            peak: largest magnitude to come; the parts are rounded to 24 bits below it, so that
                they add up exactly.
            lag_s: how far what comes out is behind, from 0.26 s.

        Raises:
            AudioFileError: samples that cannot be used.
            SepError: a lag that is too short.
        """
        own, hop = self.model.sample_rate, self.model.spectrogram.hop
        chunking = live(round(lag_s * own), hop, hop * 2**self.model.levels)
        scan = Scan()
        scan.peak = peak
        asked = self._vector(query)
        waves = (
            load(block, sample_rate)[0].float() for block in blocks if 0 not in np.shape(block)
        )
        if (first := next(waves, None)) is None:
            return
        before = torch.zeros(len(first), round(chunking.context * sample_rate / own))
        masking = self._masking(asked[None], [alone(Variant(sharpness))], refine)
        adder = OverlapAdd(masking, chunking, self.device, masking.whole)
        pairs = separated(chain([before, first], waves), sample_rate, masking, adder, scan)
        next(pairs)  # what comes of the silence before, a context that the first segment has, too
        for mixture, parts in pairs:
            yield parts[0], mixture - parts[0]

    def _similarities(self, waves: Tensor, queries: Tensor) -> list[float]:
        """Of sounds (Q, N) with their queries (Q, D)."""
        return [self.similarity(wave, query) for wave, query in zip(waves, queries, strict=True)]

    @torch.no_grad()
    def similarity(self, wave: Tensor, query: Tensor) -> float:
        """Cosine of a sound (N,) at the model's rate and a query (D,); NaN for silence."""
        meter = self._meter()
        meter.push(wave.cpu())
        return meter.similarity(query)

    def _vector(self, query: Query) -> Tensor:
        """One query as (D,)."""
        if isinstance(query, str):
            return self.query(text=query)
        if isinstance(query, Mapping):
            given = {ALIASES.get(name, name): value for name, value in query.items()}
            for name in given.keys() - ASKED:
                raise QueryError(f"a query has no '{name}'; use {', '.join(sorted(ASKED))}")
            return self.query(**given)
        if not isinstance(query, Tensor):
            raise QueryError(f"a query is a text, a mapping or a vector, not {query!r:.40}")
        size = self.model.config["embed_dim"]
        if query.shape != (size,) or not (query.isfinite().all() and query.any()):
            raise QueryError(
                f"query: give the {size} finite numbers that Separator.query returns, "
                f"not a tensor of shape {tuple(query.shape)}"
            )
        return query.float()

    def _masking(
        self, queries: Tensor, readings: Sequence[Reading], refine: bool | None, keep: bool = False
    ) -> Masking:
        if not (self.refines if refine is None else refine):
            return Masking(self.model, queries, readings, keep, each=self.each_channel)
        stride, ear = self.chunking.stride, self._listener
        window = stride / max(1, round(stride / window_of(self.model, ear)))  # segments hear alike
        return Masking(self.model, queries, readings, keep, ear, window, self.each_channel)

    def _adder(self, masking: Masking) -> OverlapAdd:
        """Joins segments; the separator remembers where there was room for smaller ones only."""

        def remember(chunking: Chunking) -> None:
            self.chunking = chunking

        return OverlapAdd(masking, self.chunking, self.device, masking.whole, remember)

    def _meter(self) -> Meter:
        return Meter(self.encoder, self.model.sample_rate, self.device)

    def _weigh(
        self,
        source: str | Path,
        head: recording.AudioInfo,
        scan: Scan,
        queries: Tensor,
        tried: list[Variant],
        refine: bool | None,
    ) -> Reading:
        """The blend of the variants whose targets are similar to the queries."""
        count, readings = len(queries), [alone(v) for v in tried]
        meters = [self._meter() for _ in range(1 + len(tried) * count)]
        blocks = recording.blocks(source, size=FILE_BLOCK)
        masking = self._masking(queries, readings, refine)
        for _ in hear(blocks, head.sample_rate, masking, self._adder(masking), scan, meters):
            pass
        targets = iter(meters[1:])
        return blend(tried, [[next(targets).similarity(q) for q in queries] for _ in tried])

    def _peak(
        self,
        source: str | Path,
        head: recording.AudioInfo,
        scan: Scan,
        queries: Tensor,
        reading: Reading,
        refine: bool | None,
    ) -> float:
        """Largest magnitude of all parts, 1 or more."""
        peak = 1.0
        for mixture, parts in self._pass(source, head, scan, queries, reading, refine, ()):
            peak = max(peak, *(peak_of(part) for part in (*parts, mixture - sum(parts))))
        return peak

    def _pass(
        self,
        source: str | Path,
        head: recording.AudioInfo,
        scan: Scan,
        queries: Tensor,
        reading: Reading,
        refine: bool | None,
        ears: Sequence[Ear],
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """`sep.stream.separated` of a file."""
        blocks = recording.blocks(source, size=FILE_BLOCK)
        masking = self._masking(queries, [reading], refine)
        return separated(blocks, head.sample_rate, masking, self._adder(masking), scan, ears)


def default_model() -> Path:
    """The model used when none is named: that of the variable SEP_MODEL, or the one that ships."""
    return Path(os.environ.get("SEP_MODEL") or SHIPPED)


def _asked(
    query: Tensor | None,
    text: Any,
    audio: Any,
    image: Any,
    negative: Any,
    weights: Mapping[str, float] | None,
) -> Query:
    """The query itself, or arguments of `Separator.query`."""
    kinds = {"text": text, "audio": audio, "image": image, "negative": negative}
    kinds["weights"] = weights
    if query is None:
        return kinds
    others = [kind for kind, given in kinds.items() if given is not None]
    if others:
        raise QueryError(f"query is given in place of {', '.join(others)}; leave one of them out")
    return query
