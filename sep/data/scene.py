"""What recordings of one scene differ in beside its sounds: room, bandwidth, noise floor, loudness.

Shapes: B mixtures, S sources, N samples. Random numbers come from the CPU, so that a seed gives the
same scene on every device.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sep.data.kaldi import SAMPLE_RATE
from sep.data.mixing import active_rms
from sep.errors import OptionError

T60_S = (0.1, 0.8)  # reverberation times of rooms
DIRECT_DB = (-3.0, 12.0)  # of the direct sound over the reverberation
BAND_HZ = (3_500.0, 8_000.0)  # where low-passed sources end: recorded at 8 kHz and more
NOISE_DB = (10.0, 50.0)  # of the mixture over the noise floor
_GAP_S = 0.002  # between the direct sound and the first reverberation
_EDGE_HZ = 100.0  # of a low-pass
_BLOCK = 4_096  # Fourier transforms are multiples of this long


@dataclass(frozen=True)
class Scene:
    """How often, or how much, training mixtures are varied; what is 0 changes nothing.

    Attributes:
        room: probability that a mixture is reverberated, each source by a response of its own.
        band: probability that the sources of a mixture are low-passed; all at one frequency in
            half of the cases, each at its own in the others.
        noise: probability of a noise floor, which no query asks for.
        loudness_db: the whole mixture is up to this much louder or quieter.
        family: probability that the second source is of a class that the texts say is near that of
            the first.
        company: probability that a source is two clips of its class at once.

    Raises:
        OptionError: a probability beyond 0 to 1, a loudness below 0.
    """

    room: float = 0.0
    band: float = 0.0
    noise: float = 0.0
    loudness_db: float = 0.0
    family: float = 0.0
    company: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value or (value > 1 and field.name != "loudness_db"):
                wanted = "0 dB or more" if field.name == "loudness_db" else "a probability, 0 to 1"
                raise OptionError(f"scene.{field.name}={value}: give {wanted}")

    def recorded(self, sources: Tensor, generator: torch.Generator) -> Tensor:
        """Put sources (B, S, N) into rooms and limit their bands; levels are not kept."""
        count, each = sources.shape[:2]
        if len(rows := _chosen(count, self.room, generator)):
            shape = (len(rows), each)
            t60_s = _uniform((len(rows), 1), T60_S, generator).expand(shape)
            responses = room(t60_s, _uniform(shape, DIRECT_DB, generator), generator)
            heard = convolve(sources[rows], responses.to(sources.device))
            sources = sources.index_copy(0, rows.to(sources.device), heard)
        if len(rows := _chosen(count, self.band, generator)):
            cut_hz = _uniform((len(rows), each), BAND_HZ, generator)
            alike = torch.rand(len(rows), 1, generator=generator) < 0.5
            cut_hz = torch.where(alike, cut_hz[:, :1], cut_hz)
            heard = low_pass(sources[rows], cut_hz)
            sources = sources.index_copy(0, rows.to(sources.device), heard)
        return sources

    def louder(self, sources: Tensor, generator: torch.Generator) -> Tensor:
        """Bring each mixture of `sources` (B, S, N) to another level, full scale at most."""
        if not self.loudness_db:
            return sources
        spread = (-self.loudness_db, self.loudness_db)
        gain = 10 ** (_uniform((len(sources),), spread, generator).to(sources.device) / 20)
        peak = sources.sum(1).abs().amax(-1).clamp(min=1e-6)
        return sources * gain.minimum(1 / peak)[:, None, None]

    def floor(self, sources: Tensor, generator: torch.Generator) -> Tensor:
        """Noise (B, N) to be added to the mixtures of `sources` (B, S, N); (B, 1) zeros without."""
        if not self.noise:
            return sources.new_zeros(len(sources), 1)
        silent = sources.new_zeros(len(sources), sources.shape[-1])
        if not len(rows := _chosen(len(sources), self.noise, generator)):
            return silent
        tilt = torch.rand(len(rows), generator=generator)
        made = hiss(tilt, sources.shape[-1], generator).to(sources.device)
        snr_db = _uniform((len(rows),), NOISE_DB, generator).to(sources.device)
        made = made * (active_rms(sources[rows].sum(1)) * 10 ** (-snr_db / 20))[:, None]
        return silent.index_copy(0, rows.to(sources.device), made)


def room(
    t60_s: Tensor, direct_db: Tensor, generator: torch.Generator, sample_rate: int = SAMPLE_RATE
) -> Tensor:
    """Responses of synthetic rooms: the direct sound and, 2 ms after it, noise that dies away.

    Args:
        t60_s: (...) time in which the noise falls by 60 dB, when the response ends.
        direct_db: (...) energy of the direct sound, which is 1, over that of the noise.
        generator: on the CPU.

    Returns:
        (..., L), L samples of the longest time.
    """
    seconds = torch.arange(round(float(t60_s.max()) * sample_rate))
    seconds = seconds / sample_rate
    tail = torch.randn(*t60_s.shape, len(seconds), generator=generator)
    t60_s = t60_s[..., None]
    tail = tail * 10 ** (-3 * seconds / t60_s) * ((seconds >= _GAP_S) & (seconds < t60_s))
    energy = tail.square().sum(-1, keepdim=True).clamp(min=1e-12)
    tail = tail * (10 ** (-direct_db[..., None] / 10) / energy).sqrt()
    tail[..., 0] = 1.0
    return tail


def convolve(waves: Tensor, responses: Tensor) -> Tensor:
    """The first N samples of waves (..., N) through responses (..., L)."""
    samples = waves.shape[-1]
    size = -(-(samples + responses.shape[-1]) // _BLOCK) * _BLOCK
    spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(responses, size)
    return torch.fft.irfft(spectrum, size)[..., :samples]


def low_pass(waves: Tensor, cut_hz: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Take what lies above `cut_hz` (...) out of waves (..., N), where they are 6 dB down."""
    samples = waves.shape[-1]
    size = (samples // _BLOCK + 1) * _BLOCK
    hertz = torch.linspace(0, sample_rate / 2, size // 2 + 1, device=waves.device)
    gain = torch.sigmoid((cut_hz.to(waves.device)[..., None] - hertz) / _EDGE_HZ)
    return torch.fft.irfft(torch.fft.rfft(waves, size) * gain, size)[..., :samples]


def hiss(tilt: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Noise of RMS 1 between white and brown, by `tilt` (B,) from 0 to 1: (B, samples)."""
    size = (samples // _BLOCK + 1) * _BLOCK
    bins = torch.arange(size // 2 + 1).clamp(min=size // 512)  # flat below a 256th of the band
    spectrum = torch.fft.rfft(torch.randn(len(tilt), size, generator=generator))
    wave = torch.fft.irfft(spectrum * bins ** -tilt[:, None], size)[:, :samples]
    return wave / wave.square().mean(-1, keepdim=True).sqrt()


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Indices of `count` rows, each there with probability `share`; for 0 nothing is drawn."""
    if not share:
        return torch.zeros(0, dtype=torch.long)
    return (torch.rand(count, generator=generator) < share).nonzero()[:, 0]


def _uniform(
    shape: tuple[int, ...], ends: tuple[float, float], generator: torch.Generator
) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * torch.rand(shape, generator=generator)
