"""Mixing and the augmentations that make an encoder a judge of separated sound.

Everything works on batches of waveforms (B, N); F is the linear bin, T the frame of an STFT.
Random numbers come from a CPU generator, so a seed gives the same batch on every device.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

N_FFT, HOP = 1024, 512


def active_rms(wave: Tensor, frame: int = 320, below_db: float = 40.0) -> Tensor:
    """RMS (B,) over the frames that are at most `below_db` under the loudest one."""
    usable = wave[:, : wave.shape[-1] // frame * frame]
    power = usable.unflatten(-1, (-1, frame)).square().mean(-1)  # (B, frames)
    active = power >= power.amax(-1, keepdim=True) * 10 ** (-below_db / 10)
    return ((power * active).sum(-1) / active.sum(-1)).sqrt()


def mix(
    first: Tensor, second: Tensor, snr_db: Tensor, generator: torch.Generator, masked: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mix pairs of sources, some through the kind of mask a separator makes.

    Each source is brought to the same active RMS and to `snr_db`. Each may be band-limited and
    tilted, as recordings are. In a share `masked` of the rows the mixture then passes a soft mask
    of random quality: somewhere between the ideal ratio mask of the first source, none and
    random blotches. The SNR returned is the one that is left after all that.

    Args:
        first: (B, N) sources.
        second: (B, N) interferers.
        snr_db: (B,) level of first over second in dB; infinity leaves the first alone.
        generator: CPU generator of the random draws.
        masked: share of rows that pass a mask.

    Returns:
        Mixtures (B, N) of peak 0.5 and the SNR (B,) in dB in them.
    """
    device, rows, length = first.device, first.shape[0], first.shape[-1]
    window = torch.hann_window(N_FFT, device=device)
    gain = 10 ** (-snr_db / 20) * active_rms(first) / active_rms(second).clamp_min(1e-8)
    sources = torch.cat([first, second * gain.clamp(max=1e8)[:, None]])
    spectra = torch.stft(
        sources, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    spectra = spectra * _colour(2 * rows, spectra.shape[1], generator).to(device)[..., None]
    a, b = spectra[:rows], spectra[rows:]
    used = torch.nonzero(torch.rand(rows, generator=generator) < masked)[:, 0].to(device)
    mask = _mask(a[used].abs(), b[used].abs(), generator)
    spectra[used] *= mask
    spectra[used + rows] *= mask
    waves = torch.istft(spectra, N_FFT, HOP, window=window, length=length)
    a, b = waves[:rows], waves[rows:]
    left_db = 20 * torch.log10(active_rms(a) / active_rms(b).clamp_min(1e-8))
    left_db = torch.where(torch.isposinf(snr_db), snr_db, left_db.clamp(-60, 60))
    return _level(a + b), left_db


def add_noise(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise 20 to 60 dB below each waveform (B, N), its colour between white and brown."""
    noise = torch.randn(wave.shape, generator=generator).to(wave.device)
    tilt = torch.rand(len(wave), 1, generator=generator).to(wave.device)
    spectrum = torch.fft.rfft(noise)
    bins = torch.arange(1, spectrum.shape[-1] + 1, device=wave.device)
    noise = torch.fft.irfft(spectrum * bins ** (-tilt), n=wave.shape[-1])
    snr_db = 20 + 40 * torch.rand(len(wave), generator=generator).to(wave.device)
    gain = active_rms(wave) / active_rms(noise) * 10 ** (-snr_db / 20)
    return wave + noise * gain[:, None]


def stripes(shape: tuple[int, int, int], generator: torch.Generator, share: float) -> Tensor:
    """SpecAugment (arXiv 1904.08779) as a multiplier (B, H, T): two bands along each axis.

    Each band takes up to `share` of its axis.
    """
    rows, bins, frames = shape
    kept = torch.ones(shape)
    for size, view in ((bins, (rows, bins, 1)), (frames, (rows, 1, frames))):
        for _ in range(2):
            width, place = torch.rand(2, rows, 1, generator=generator)
            width = width * share * size
            start = place * (size - width)
            axis = torch.arange(size)
            band = (axis >= start) & (axis < start + width)
            kept = kept * (~band).float().view(view)
    return kept


def _colour(rows: int, bins: int, generator: torch.Generator) -> Tensor:
    """Frequency responses (rows, F): a tilt of up to 6 dB, low-passed in two rows of five."""
    tilt, cut, use = torch.rand(3, rows, 1, generator=generator)
    axis = torch.linspace(0, 1, bins)
    response = 10 ** ((tilt - 0.5) * 12 * (axis - 0.5) / 20)
    cut = 0.3 + 0.7 * cut  # 2.4 to 8 kHz of 8
    low = torch.sigmoid((cut - axis) * 60)
    return response * torch.where(use < 0.4, low, 1.0)


def _mask(a: Tensor, b: Tensor, generator: torch.Generator) -> Tensor:
    """Masks (B, F, T) of random quality and sharpness for sources of magnitude `a` and `b`."""
    rows, bins, frames = a.shape
    quality, sharp, depth = torch.rand(3, rows, 1, 1, generator=generator).to(a.device)
    power = 0.5 + 2 * sharp
    floor = a.amax((1, 2), keepdim=True).clamp_min(1e-8) * 1e-5
    ideal = torch.sigmoid(power * 2 * (torch.log(a + floor) - torch.log(b + floor)))
    coarse = torch.randn(rows, 1, 12, 16, generator=generator).to(a.device)
    fine = torch.randn(rows, 1, 48, 64, generator=generator).to(a.device)
    noise = interpolate(coarse, (bins, frames), mode="bilinear")
    noise = noise + 0.7 * interpolate(fine, (bins, frames), mode="bilinear")
    logit = quality * 6 * (ideal - 0.5) + depth * 3 * noise[:, 0] + 1
    return torch.sigmoid(logit)


def _level(wave: Tensor) -> Tensor:
    return 0.5 * wave / wave.abs().amax(-1, keepdim=True).clamp_min(1e-8)
