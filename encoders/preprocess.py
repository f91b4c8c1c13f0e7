"""From recordings and pictures to what the towers take: log-mel patches, windows, image tensors.

Shapes: B batch, N samples, H mel bin, T frame, W windows of all clips together.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn

from encoders.base import EncoderError

if TYPE_CHECKING:
    from PIL import Image

MEAN = (0.5, 0.5, 0.5)  # what EfficientNet-Lite was trained with
STD = (0.5, 0.5, 0.5)
PIXEL_LIMIT = 50_000_000  # of a picture; beyond it takes gigabytes


class LogMel(nn.Module):
    """Level-independent log-mel patches (B, H, T) of waveforms (B, N), differentiable.

    The mel power is taken relative to the loudest frame of the clip, so gain does not matter,
    and nothing more than `range_db` below that frame is seen, so the noise floor of a
    recording (or its absence) says little about where it came from.

    Args:
        sample_rate: rate of the waveforms in Hz.
        n_fft: transform length in samples.
        window: Hann window in samples.
        hop: samples between frames.
        mels: H, between 40 Hz and half the rate.
        range_db: level below the loudest frame's total power that is still seen.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 1024,
        window: int = 640,
        hop: int = 320,
        mels: int = 128,
        range_db: float = 70.0,
    ):
        super().__init__()
        self.n_fft, self.win_length, self.hop, self.range_db = n_fft, window, hop, range_db
        bank = torchaudio.functional.melscale_fbanks(
            n_fft // 2 + 1, 40.0, sample_rate / 2, mels, sample_rate
        )
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def spectrum(self, wave: Tensor) -> Tensor:
        """Complex spectrogram (B, F, T) of waveforms (B, N), T = N // hop + 1."""
        return torch.stft(
            wave.float(),
            self.n_fft,
            self.hop,
            self.win_length,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )

    def patch(self, spectrum: Tensor) -> Tensor:
        """Map (B, F, T) to patches (B, H, T) of about zero mean and unit spread."""
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (power.transpose(1, 2) @ self.bank).transpose(1, 2)
        loudest = mel.sum(1).amax(-1).clamp_min(1e-20)[:, None, None]
        floor = 10 ** (-self.range_db / 10)
        level_db = 10 * torch.log10(mel / loudest + floor)
        return (level_db + 0.65 * self.range_db) / (0.25 * self.range_db)

    def forward(self, wave: Tensor) -> Tensor:
        """Map waveforms (B, N) to patches (B, H, T)."""
        return self.patch(self.spectrum(wave))


def resample(wave: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Resample (..., N) from one rate to another, both in Hz."""
    if from_hz == to_hz:
        return wave
    return torchaudio.functional.resample(wave, int(from_hz), int(to_hz))


def tile(wave: Tensor, length: int) -> Tensor:
    """Repeat (B, N) until `length` samples are filled; longer waveforms are left alone."""
    if wave.shape[-1] >= length:
        return wave
    whole, part = divmod(length, wave.shape[-1])
    return torch.cat([wave] * whole + [wave[:, :part]], 1)


def windows(wave: Tensor, length: int, batch: int = 64) -> Iterator[tuple[int, Tensor]]:
    """Cut (B, N) into windows (B, `length`) that cover it, evenly spaced from start to end.

    A clip shorter than a window is tiled to one. Yields (number of windows, block) where a block
    (W, `length`) holds whole steps of time for all B clips, time first, at most about `batch`
    windows; so memory does not grow with N.
    """
    wave = tile(wave, length)
    count = -(-wave.shape[-1] // length)
    spare = wave.shape[-1] - length
    starts = [round(spare * step / max(count - 1, 1)) for step in range(count)]
    steps = max(1, batch // wave.shape[0])
    for first in range(0, count, steps):
        block = [wave[:, start : start + length] for start in starts[first : first + steps]]
        yield len(block), torch.cat(block) if len(block) > 1 else block[0]


def load_image(item: Any, size: int = 224) -> Tensor:
    """Turn a path, PIL image or tensor into a normalised (3, size, size) float tensor.

    As `square_image`, whose errors it raises.
    """
    return normalised(square_image(item, size))


def normalised(picture: Tensor) -> Tensor:
    """Colours (..., 3, H, W) in [0, 1] as networks of ImageNet take them."""
    mean = torch.tensor(MEAN, device=picture.device)[:, None, None]
    return (picture - mean) / torch.tensor(STD, device=picture.device)[:, None, None]


def square_image(item: Any, size: int = 224) -> Tensor:
    """Turn a path, PIL image or tensor into a (3, size, size) float tensor in [0, 1].

    Transparent parts become white. A tensor is (3, height, width), uint8 or float in [0, 1].
    The longer side is padded with white, so that nothing of a drawing is cut off.

    Raises:
        EncoderError: the path is missing or no image, or the tensor has another shape.
    """
    if isinstance(item, Tensor):
        picture = item
    else:
        picture = torch.from_numpy(np.array(open_image(item))).permute(2, 0, 1)
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise EncoderError(f"an image tensor must be (3, height, width); got {picture.shape}")
    picture = picture.float() / (1 if picture.is_floating_point() else 255)
    height, width = picture.shape[-2:]
    scale = size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    picture = nn.functional.interpolate(
        picture[None], inner, mode="bilinear", antialias=True, align_corners=False
    )[0].clamp(0, 1)
    canvas = torch.ones(3, size, size, device=picture.device)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    canvas[:, top : top + inner[0], left : left + inner[1]] = picture
    return canvas


def open_image(item: Any) -> "Image.Image":
    """Open a path or PIL image as RGB, its transparent parts white; raises EncoderError."""
    from PIL import Image

    if isinstance(item, Image.Image):
        picture = item
    elif isinstance(item, (str, Path)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                file = Image.open(item)
            with file:
                if file.width * file.height > PIXEL_LIMIT:
                    raise Image.DecompressionBombError
                file.load()
                picture = file
        except FileNotFoundError:
            raise EncoderError(f"{item}: no such image file; check the name") from None
        except Image.DecompressionBombError:
            raise EncoderError(
                f"{item} has more than {PIXEL_LIMIT // 10**6} million pixels; "
                "make the picture smaller"
            ) from None
        except (OSError, ValueError, SyntaxError) as error:
            reason = getattr(error, "strerror", None) or "damaged, or no picture"
            raise EncoderError(
                f"{item} cannot be read as an image ({reason}); give a PNG or JPEG"
            ) from None
    else:
        raise EncoderError(f"an image is a path, a PIL image or a tensor; got {type(item)}")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
