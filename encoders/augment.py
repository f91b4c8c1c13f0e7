"""Mixing and the augmentations that make an encoder a judge of separated sound.

Everything works on batches of complex spectrograms (B, F, T), so that a mixture, its colouring,
its mask and its noise cost one transform. Random numbers come from a CPU generator, so a seed
gives the same batch on every device.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_FFT, _WINDOW = 1024, 640  # samples


def stft(wave: Tensor) -> Tensor:
    """Complex spectrograms (B, 513, T) of waveforms (B, N) that mixing works on."""
    window = torch.hann_window(_WINDOW, device=wave.device)
    return torch.stft(
        wave, _FFT, _WINDOW // 2, _WINDOW, window, pad_mode="constant", return_complex=True
    )


def istft(spectrum: Tensor, length: int) -> Tensor:
    """Waveforms (B, `length`) of complex spectrograms (B, 513, T), the inverse of `stft`."""
    window = torch.hann_window(_WINDOW, device=spectrum.device)
    return torch.istft(spectrum, _FFT, _WINDOW // 2, _WINDOW, window, length=length)


def active_power(spectrum: Tensor, below_db: float = 40.0) -> Tensor:
    """Mean power (B,) of the frames that are at most `below_db` under the loudest one.

    (B, F, T) complex; the power of a frame is the sum over its bins.
    """
    power = (spectrum.real.square() + spectrum.imag.square()).sum(1)  # (B, T)
    active = power >= power.amax(-1, keepdim=True) * 10 ** (-below_db / 10)
    return (power * active).sum(-1) / active.sum(-1)


def mix(
    first: Tensor, second: Tensor, snr_db: Tensor, generator: torch.Generator, masked: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mix pairs of sources, some through the kind of mask a separator makes.

    The pair is brought to `snr_db` between their active powers. In a share `masked` of the rows the
    mixture passes a soft mask of random quality: somewhere between the ideal ratio mask of the
    first source, none and random blotches. The SNR returned is the one that is left after that.

    Args:
        first: (B, F, T) complex spectrograms.
        second: (B, F, T) interferers.
        snr_db: (B,) level of first over second in dB; infinity leaves the first alone.
        generator: CPU generator of the random draws.
        masked: share of rows that pass a mask.

    Returns:
        Mixtures (B, F, T), and the SNR (B,) in dB in them.
    """
    device, rows = first.device, len(first)
    first, second = first.clone(), second.clone()
    ratio = active_power(first) / active_power(second).clamp_min(1e-12)
    gain = (ratio * 10 ** (-snr_db / 10)).sqrt().clamp(max=1e8)
    second = second * gain[:, None, None]
    used = torch.nonzero(torch.rand(rows, generator=generator) < masked)[:, 0].to(device)
    mask = _mask(first[used].abs(), second[used].abs(), generator)
    first[used] *= mask
    second[used] *= mask
    left_db = 10 * torch.log10(active_power(first) / active_power(second).clamp_min(1e-12))
    left_db = torch.where(torch.isposinf(snr_db), snr_db, left_db.clamp(-60, 60))
    return first + second, left_db


def colour(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Tilt spectrograms (B, F, T) by random smooth curves, and low-pass two in five of them."""
    rows, bins, _ = spectrum.shape
    return spectrum * _colour(rows, bins, generator).to(spectrum.device)[..., None]


def add_noise(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise 20 to 60 dB below each spectrogram (B, F, T), between white and brown."""
    rows, bins, _ = spectrum.shape
    level, tilt = torch.rand(2, rows, 1, generator=generator)
    noise = torch.randn(*spectrum.shape, 2, generator=generator)
    noise = torch.view_as_complex(noise) * (torch.arange(1, bins + 1) ** -tilt)[..., None]
    noise = noise.to(spectrum.device)
    ratio = active_power(spectrum) / active_power(noise)
    gain = (ratio * 10 ** (-(2 + 4 * level[:, 0]).to(ratio.device))).sqrt()
    return spectrum + noise * gain[:, None, None]


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
    """Frequency responses (rows, F): a smooth random curve, low-passed in two rows of five."""
    knots = torch.randn(rows, 1, 6, generator=generator) * 4  # dB
    curve_db = interpolate(knots, bins, mode="linear", align_corners=True)[:, 0].clamp(-12, 12)
    cut, use = torch.rand(2, rows, 1, generator=generator)
    cut = 0.3 + 0.7 * cut  # 2.4 to 8 kHz of 8
    low = torch.sigmoid((cut - torch.linspace(0, 1, bins)) * 60)
    return 10 ** (curve_db / 20) * torch.where(use < 0.4, low, 1.0)


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
