"""The held-out judge: an audio classifier that shares nothing with the encoders.

It scores what a separator returns and is never a training signal, so that a reward that was
gamed shows. Own front end, own small network from random weights, own loss: it hears several
sounds at once and gives each class its own yes or no. Another one, trained from other weights on
other mixtures, can be a critic: a part of the reward beside the encoder.

Shapes: B batch, C class, N samples, H mel bin, T frame, E embedding.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize

from encoders.base import EncoderError, check_wave
from encoders.checkpoint import load_weights, read_config, save_folder
from encoders.preprocess import LogMel, resample, windows


class JudgeNet(nn.Module):
    """A plain convolutional network: waveforms (B, N) to unit vectors (B, E).

    64 mel bins and 25 ms windows every 16 ms, four stages of two 3x3 convolutions, mean and
    maximum over time.

    Args:
        dim: E.
        width: channels of the first stage.
        sample_rate: rate of the waveforms in Hz.
    """

    def __init__(self, dim: int, width: int, sample_rate: int):
        super().__init__()
        self.log_mel = LogMel(sample_rate, n_fft=512, window=400, hop=256, mels=64, range_db=60)
        channels = [1, width, 2 * width, 4 * width, 6 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(
                _conv(into, out, stride=2 if into == 1 else 1), _conv(out, out, groups=out // 8)
            )
            for into, out in pairwise(channels)
        )
        self.out = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * channels[-1], dim))

    def forward(self, wave: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map (B, N) to (B, E); `keep` (B, H) silences mel bins in training."""
        x = self.log_mel(wave)
        if keep is not None:
            x = torch.where(keep[:, :, None], x, x.amin((1, 2), keepdim=True))
        x = x[:, None]
        for stage in self.stages:
            x = max_pool2d(stage(x), 2)
        x = x.mean(2)  # over frequency: (B, channels, T)
        return normalize(self.out(torch.cat([x.mean(-1), x.amax(-1)], dim=1)), dim=-1)


def _conv(into: int, out: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(into, out, 3, stride, padding=1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class Judge(nn.Module):
    """Classifier whose logits are scaled cosines to one unit vector a class.

    Args:
        labels: the C class names.
        dim: E.
        width: channels of the network's first stage.
        window_s: window in seconds; shorter sounds are tiled, longer ones averaged.
    """

    sample_rate = 16_000

    def __init__(
        self, labels: Sequence[str], dim: int = 128, width: int = 32, window_s: float = 2.56
    ):
        super().__init__()
        self.labels = list(labels)
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.config = {"labels": self.labels, "dim": dim, "width": width, "window_s": window_s}
        self.window = round(window_s * self.sample_rate)
        self.net = JudgeNet(dim, width, self.sample_rate)
        self.class_vectors = nn.Parameter(torch.randn(len(self.labels), dim) / math.sqrt(dim))
        self.scale = nn.Parameter(torch.tensor(math.log(12.0)))
        self.bias = nn.Parameter(torch.tensor(-6.0))
        self.eval()

    @property
    def vectors(self) -> Tensor:
        """(C, E) unit vectors of the classes, detached."""
        return normalize(self.class_vectors.detach(), dim=-1)

    def logits(self, embedding: Tensor) -> Tensor:
        """Map unit vectors (B, E) to (B, C) log odds that each class is heard."""
        return self.scale.exp() * embedding @ normalize(self.class_vectors, dim=-1).T + self.bias

    @torch.no_grad()
    def embed(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Embed waveforms (B, N) at `sample_rate` Hz as unit vectors (B, E), without gradient."""
        return self.hear(wave, sample_rate)

    def hear(self, wave: Tensor, sample_rate: int) -> Tensor:
        """As `embed`, differentiable in the waveforms.

        Windows count by their RMS level. Silence is allowed: a separator may return it.
        Raises EncoderError for NaN, an empty waveform or a rate below 1.
        """
        device = self.class_vectors.device
        check_wave(wave, sample_rate, silence=True)
        wave = resample(wave.to(device, torch.float32), sample_rate, self.sample_rate)
        total = 0.0
        for steps, block in windows(wave, self.window):
            level = block.square().mean(-1, keepdim=True).sqrt() + 1e-8
            total = total + (self.net(block) * level).unflatten(0, (steps, -1)).sum(0)
        return normalize(total, dim=-1)

    def similarity(self, wave: Tensor, sample_rate: int, labels: Sequence[str]) -> Tensor:
        """Cosine (B,) in [-1, 1] of waveforms (B, N) to the vectors of their B `labels`.

        Raises:
            EncoderError: a label the judge was not trained on, or as many labels as sounds not
                given.
        """
        unknown = sorted(set(labels) - set(self.index))
        if unknown:
            raise EncoderError(f"the judge does not know the labels {', '.join(unknown)}")
        if len(labels) != len(wave):
            raise EncoderError(f"{len(wave)} sounds need as many labels; got {len(labels)}")
        index = torch.tensor([self.index[label] for label in labels])
        vectors = self.vectors[index.to(self.class_vectors.device)]
        return (self.embed(wave, sample_rate) * vectors).sum(-1)

    def classify(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Index into `labels` (B,) of the class that waveforms (B, N) sound most like."""
        return self.logits(self.embed(wave, sample_rate)).detach().argmax(-1)

    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write `config.json` and `model.safetensors`, each atomically."""
        config = {"name": "judge", **self.config, "provenance": provenance or {}}
        save_folder(folder, config, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder written by `save`; raises EncoderError."""
        config = read_config(folder)
        if config.get("name") != "judge":
            raise EncoderError(f"{folder} holds no judge; check the folder")
        try:
            judge = cls(*(config[key] for key in ("labels", "dim", "width", "window_s")))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise EncoderError(f"{folder}/config.json is damaged ({error}); train anew") from None
        load_weights(judge, folder)
        return judge
