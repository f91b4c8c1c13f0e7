"""Encoder "yamnet": how AudioSet's classes are heard in a sound, and meant by a text.

A listener from outside: YAMNet was trained on two million clips of AudioSet and on nothing that
the other encoders, judges or separators here have heard. It has no pictures and is not trained.

The network is that of TensorFlow's model garden (research/audioset/yamnet): MobileNet v1 (arXiv
1704.04861) on log-mel patches of 64 bands and 96 frames.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import normalize

from encoders import minilm
from encoders.base import Encoder, EncoderError, check_wave
from encoders.checkpoint import fingerprint
from encoders.lite0 import conv
from encoders.precision import convolve, fold_norms, layout
from encoders.preprocess import resample, tile

FETCH = "python egs/open_sounds/local/audioset.py --into DIR makes DIR/yamnet.safetensors"
BANDS, FRAMES = 64, 96  # of a patch; patches begin every half of one
WINDOW, HOP, TRANSFORM = 400, 160, 512  # samples of a frame
CLASSES = 521
NAMES = "classes"  # key of the file's metadata, a JSON list
STAGES = (  # stride, channels of the separable convolutions after the first, which has 32
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    *[(1, 512)] * 5,
    (2, 1024),
    (1, 1024),
)
BATCH = 64  # patches at once
SHARPNESS = 20.0  # of the classes that a text may mean, a factor on cosines


class YAMNet(nn.Module):
    """Log-mel patches (B, 1, bands, frames) to logits (B, 521).

    Bands and frames are the other way round than in the original.
    """

    def __init__(self):
        super().__init__()
        channels, layers = 32, [_layer(1, 32, 3, 2)]
        for stride, width in STAGES:
            layers += [_layer(channels, channels, 3, stride, channels), _layer(channels, width, 1)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, patch: Tensor) -> Tensor:
        """Map patches (B, 1, bands, frames) to logits (B, 521)."""
        return self.classifier(self.layers(patch).mean((2, 3)))


def _layer(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    norm = nn.BatchNorm2d(out, eps=1e-4)
    return nn.Sequential(conv(into, out, kernel, stride, groups), norm, nn.ReLU(inplace=True))


class YamnetEncoder(Encoder):
    """521 dimensions, one a class of AudioSet.

    A sound is its classes' probabilities, the mean over patches; a text is the classes whose names
    it may mean, by MiniLM (`SHARPNESS`); each of norm 1, so that their cosine is high where the
    sound is classified as what the text says.

    Args:
        state: of `YAMNet`; names: of its classes.
    """

    name = "yamnet"
    dim = CLASSES
    sample_rate = 16_000
    window = WINDOW + (FRAMES - 1) * HOP
    licence = "Apache-2.0 (YAMNet, TensorFlow model garden)"
    text_apart = True

    def __init__(self, state: dict[str, Tensor] | None = None, names: Sequence[str] = ()):
        if state is None:
            raise EncoderError(f"encoder 'yamnet' takes a file of weights; {FETCH}")
        self.names = list(names)
        self.net = YAMNet()
        self.net.load_state_dict(state)
        self.net.eval().requires_grad_(False)
        self._fingerprint = fingerprint(self.name, state)
        fold_norms(self.net.layers)
        self.bank = mel_bank()
        self.frame = torch.hann_window(WINDOW)
        self._texts: tuple[nn.Module, Tensor] | None = None

    @property
    def fingerprint(self) -> str:
        """As in `Encoder`."""
        return self._fingerprint

    def patches(self, wave: Tensor) -> Tensor:
        """Waveforms (B, N) of a window or more to log-mel patches (B, P, bands, frames)."""
        frames = wave.unfold(-1, WINDOW, HOP) * self.frame  # (B, F, WINDOW)
        bands = torch.log(torch.fft.rfft(frames, TRANSFORM).abs() @ self.bank + 1e-3)
        return bands.unfold(1, FRAMES, FRAMES // 2)  # (B, P, bands, frames)

    def probabilities(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Waveforms (B, N) to the mean probability of each class (B, 521)."""
        check_wave(wave, sample_rate)
        wave = wave.to(self.bank.device, torch.float32)
        wave = tile(resample(wave, sample_rate, self.sample_rate), self.window)
        patches = self.patches(wave)
        count = patches.shape[1]
        parts = patches.flatten(0, 1)[:, None].split(BATCH)
        logits = torch.cat([convolve(self.net, part).float() for part in parts])
        return logits.sigmoid().unflatten(0, (-1, count)).mean(1)

    def embed_audio(self, wave: Tensor, sample_rate: int, window_s: float | None = None) -> Tensor:
        """As in `Encoder`; the window is always that of YAMNet."""
        return normalize(self.probabilities(wave, sample_rate), dim=-1)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """As in `Encoder`."""
        if isinstance(texts, str) or any(not text.strip() for text in texts):
            raise EncoderError("embed_text takes a list of texts, none of them empty")
        if self._texts is None:
            reader = minilm.MiniLM().eval().requires_grad_(False).to(self.bank.device)
            self._texts = reader, normalize(reader([n.lower() for n in self.names]), dim=-1)
        reader, classes = self._texts
        cosine = normalize(reader(list(texts)), dim=-1) @ classes.T
        return normalize(torch.softmax(SHARPNESS * cosine, -1), dim=-1)

    def embed_image(self, images: Sequence[Any]) -> Tensor:
        """There are none: raises EncoderError."""
        raise EncoderError("encoder 'yamnet' sees no pictures; use small or imagebind")

    def to(self, device: str | torch.device) -> Self:
        """As in `Encoder`."""
        self.net.to(device).to(memory_format=layout(torch.device(device)))
        self.bank, self.frame, self._texts = self.bank.to(device), self.frame.to(device), None
        return self

    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """It is never trained: raises EncoderError."""
        raise EncoderError("encoder 'yamnet' is not trained; copy the file that it came from")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that egs/open_sounds/local/audioset.py made; raises EncoderError."""
        try:
            with safe_open(path, "pt") as file:
                names = json.loads((file.metadata() or {}).get(NAMES, "[]"))
                state = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read ({error}); {FETCH}") from None
        wanted = {name: value.shape for name, value in YAMNet().state_dict().items()}
        if {k: v.shape for k, v in state.items()} != wanted or len(names) != CLASSES:
            raise EncoderError(f"{path} does not hold YAMNet; {FETCH}")
        return cls(state, names)


def mel_bank() -> Tensor:
    """Filters (257, 64): triangles over 125 to 7500 Hz in (HTK's) mel, as TensorFlow makes them."""
    mel = 1127 * torch.log1p(torch.linspace(0, 8000, TRANSFORM // 2 + 1).double() / 700)
    low, high = (1127 * torch.log1p(torch.tensor(hz / 700).double()) for hz in (125, 7500))
    edge = low + (high - low) * torch.linspace(0, 1, BANDS + 2).double()
    rise = (mel[:, None] - edge[:-2]) / (edge[1:-1] - edge[:-2])
    fall = (edge[2:] - mel[:, None]) / (edge[2:] - edge[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()
