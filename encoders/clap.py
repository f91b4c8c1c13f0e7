"""CLAP (arXiv 2211.06687) as an encoder: text and sound through transformers' ClapModel.

It has no pictures. Meant as a judge that shares nothing with what was trained here, not as a
reward. Pre-processing is ours, batched and differentiable, with the mel filters of the model's own
feature extractor.
"""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad
from torch.utils.checkpoint import checkpoint

from encoders.anchor import FusedAnchor
from encoders.base import Alignable, EncoderError, check_wave
from encoders.checkpoint import check_state, fingerprint, read_state
from encoders.precision import half_precision
from encoders.preprocess import resample, windows

_ADDED = "alignment.safetensors"
_PIP = "run: pip install transformers"


class ClapEncoder(Alignable):
    """Encoder "clap": 10 s windows at 48 kHz, no pictures.

    Args:
        weights: folder of a ClapModel with its tokenizer and feature extractor, or the name of
            one on the Hugging Face hub, which transformers then fetches and keeps.
        batch: most windows in one forward pass, a bound on memory.
        checkpointing: trade time for memory in the backward pass of `embed_audio`.

    Raises:
        EncoderError: transformers is missing, or there is no such model.
    """

    name = "clap"
    licence = "as the model that was named (laion/clap-htsat-*: Apache-2.0)"
    tuning = "heads"
    lora_targets = ("query", "value")

    def __init__(
        self,
        weights: str | Path = "laion/clap-htsat-unfused",
        batch: int = 16,
        checkpointing: bool = False,
    ):
        super().__init__()
        try:
            from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
        except ImportError:
            raise EncoderError(f"the transformers package is missing; {_PIP}") from None
        try:
            self.net = ClapModel.from_pretrained(weights, use_safetensors=True)
            self.extractor = ClapFeatureExtractor.from_pretrained(weights)
            self.tokenizer = AutoTokenizer.from_pretrained(weights)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EncoderError(
                f"{weights}: no CLAP model could be read from there ({reason}); give a folder with "
                "its safetensors weights, tokenizer and feature extractor"
            ) from None
        self.dim = self.net.config.projection_dim
        self.sample_rate = self.extractor.sampling_rate
        self.window = self.extractor.nb_max_samples
        self.batch, self.checkpointing = batch, checkpointing
        fused = self.extractor.truncation == "fusion"
        self.views = 4 if fused else 1  # of a long sound, which the model fuses
        filters = self.extractor.mel_filters if fused else self.extractor.mel_filters_slaney
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        hann = torch.hann_window(self.extractor.fft_window_size)
        self.register_buffer("hann", hann, persistent=False)
        self.anchor = FusedAnchor(self.dim)
        self.logit_scale = nn.Parameter(self.net.logit_scale_a.detach().clone())
        self._fingerprint: str | None = None
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the towers run."""
        return self.hann.device

    def to(self, device: str | torch.device) -> Self:
        """Move all towers to `device` and return the encoder."""
        super().to(device)
        return self

    def patches(self, wave: Tensor) -> Tensor:
        """Log-mel patches in dB (B, 1, T, 64) of waveforms (B, N) of one window, 10 s.

        Four equal ones (B, 4, T, 64) where the model fuses several views of long sounds.
        """
        size, hop = self.extractor.fft_window_size, self.extractor.hop_length
        spectrum = torch.stft(wave, size, hop, window=self.hann, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = power.transpose(-1, -2) @ self.filters
        return 10 * mel.clamp(min=1e-10).log10()[:, None].repeat(1, self.views, 1, 1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts as (Q, D); a text beyond the tokenizer's window is cut with a warning."""
        return self.project_text(self.text_features(texts))

    def embed_audio(self, wave: Tensor, sample_rate: int, window_s: float | None = None) -> Tensor:
        """Embed waveforms (B, N) at `sample_rate` Hz as (B, D), differentiable in `wave`.

        A clip longer than the window is the mean of its windows, weighted by their RMS level. A
        shorter one is repeated as often as it fits and padded with silence, as CLAP was trained;
        so is each window where `window_s` asks for shorter ones. Raises EncoderError for NaN,
        silence or an empty waveform.
        """
        check_wave(wave, sample_rate)
        wave = resample(wave.to(self.device, torch.float32), sample_rate, self.sample_rate)
        size = round(window_s * self.sample_rate) if window_s else self.window
        size = min(size, self.window, wave.shape[-1])
        total = wave.new_zeros(len(wave), self.dim)
        for steps, block in windows(wave, size, self.batch):
            level = block.detach().square().mean(-1, keepdim=True).sqrt()
            filled = self._fill(block)
            vectors = torch.cat([self._pass(part) for part in filled.split(self.batch)])
            total = total + (vectors * level).unflatten(0, (steps, len(wave))).sum(0)
        return normalize(total, dim=-1)

    def embed_image(self, images: Sequence[Any]) -> Tensor:
        """CLAP sees no pictures; raises EncoderError."""
        return self.image_features(images)

    # Alignment

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The projection heads of sound and text."""
        return {"audio": self.net.audio_projection, "text": self.net.text_projection}

    @property
    def backbone(self) -> nn.Module:
        """The audio network."""
        return self.net.audio_model

    def audio_patch(self, wave: Tensor) -> Tensor:
        """Log-mel patches (B, 64, T) of waveforms (B, N) of at most 10 s, tiled to that."""
        return self.patches(self._fill(wave))[:, 0].transpose(1, 2)

    def embed_patch(self, patch: Tensor) -> Tensor:
        """Embed patches (B, 64, T) as (B, D)."""
        return self._embed(patch.transpose(1, 2)[:, None].repeat(1, self.views, 1, 1))

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Pooled features (Q, E) of Q texts; raises EncoderError for an empty one."""
        if isinstance(texts, str):
            raise EncoderError("embed_text takes a list of texts; put the text in a list")
        limit = self.net.config.text_config.max_position_embeddings - 2
        limit = min(limit, self.tokenizer.model_max_length)
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise EncoderError("a text query is empty; name the sound, such as 'a dog barking'")
            length = len(self.tokenizer(text)["input_ids"])
            if length > limit:
                warnings.warn(
                    f"the text '{text[:40]}...' has {length} tokens; only the first {limit} are "
                    "used, so shorten it",
                    stacklevel=3,
                )
        if not texts:
            return torch.zeros(0, self.net.config.text_config.hidden_size, device=self.device)
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.device)
        return self.net.text_model(**tokens).pooler_output.float()

    def project_text(self, features: Tensor) -> Tensor:
        """Map pooled features (Q, E) to (Q, D)."""
        return normalize(self.net.text_projection(features), dim=-1)

    def image_features(self, images: Sequence[Any]) -> tuple[Tensor, ...]:
        """CLAP sees no pictures; raises EncoderError."""
        raise EncoderError("clap embeds text and sound only; use imagebind or small for pictures")

    def project_image(self, *features: Tensor) -> Tensor:
        """CLAP sees no pictures; raises EncoderError."""
        return self.image_features(features)[0]

    def _fill(self, wave: Tensor) -> Tensor:
        """Repeat waveforms (B, N) as often as they fit one window, then pad with silence."""
        filled = wave.repeat(1, max(1, self.window // wave.shape[-1]))
        return pad(filled, (0, self.window - filled.shape[-1]))

    def _pass(self, wave: Tensor) -> Tensor:
        if self.checkpointing and wave.requires_grad:
            return checkpoint(self._forward, wave, use_reentrant=False)
        return self._forward(wave)

    def _forward(self, wave: Tensor) -> Tensor:
        return self._embed(self.patches(wave))

    def _embed(self, patches: Tensor) -> Tensor:
        """Unit vectors (B, D), float32, of patches (B, views, T, 64)."""
        longer = torch.zeros(len(patches), 1, dtype=torch.bool, device=patches.device)
        low = half_precision(patches.device)
        with torch.autocast(patches.device.type, torch.bfloat16) if low else nullcontext():
            hidden = self.net.audio_model(input_features=patches, is_longer=longer).pooler_output
            vectors = self.net.audio_projection(hidden)
        return normalize(vectors.float(), dim=-1)

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over names, shapes and values."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.name, self.state_dict())
        return self._fingerprint

    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write what `load` reads, as transformers lays it out, and put it in place at once.

        Beside that, `alignment.safetensors` holds what alignment adds to the model, and
        `alignment.json` the `provenance`.
        """
        self._fingerprint = None  # alignment may have changed the weights
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        from safetensors.torch import save_file

        try:
            for part in (self.net, self.tokenizer, self.extractor):
                part.save_pretrained(temporary)
            save_file(self._added(), temporary / _ADDED)
            text = json.dumps({"provenance": provenance or {}}, indent=1) + "\n"
            (temporary / "alignment.json").write_text(text, encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder, or a model of the hub; raises EncoderError."""
        encoder = cls(path)
        added = Path(path) / _ADDED
        if added.is_file():
            state = read_state(added)
            check_state(encoder._added(), state, added)
            encoder.load_state_dict(state, strict=False)
        return encoder

    def _added(self) -> dict[str, Tensor]:
        """The tensors that are not the model's own."""
        own = self.state_dict()
        return {k: v for k, v in own.items() if k.split(".")[0] in ("anchor", "logit_scale")}
