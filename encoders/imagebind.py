"""ImageBind (arXiv 2305.05665) as an encoder: text, sound and pictures, without video loaders.

The network and the tokenizer are those of the `imagebind` package, of which only the vision, text
and audio parts are kept; pre-processing is ours, batched and differentiable. The package's
top-level module needs video libraries, so its network is imported past it.
"""

import importlib.util
import math
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from encoders.anchor import FusedAnchor
from encoders.base import Alignable, EncoderError, check_wave
from encoders.checkpoint import fingerprint, load_state, load_weights, read_config, save_folder
from encoders.precision import half_precision
from encoders.preprocess import open_image, resample, tile

LICENCE = "CC BY-NC-SA 4.0 (ImageBind weights): no commercial use"
FILE = "imagebind_huge.pth"
VARIABLE = "IMAGEBIND_WEIGHTS"
MODALITIES = ("vision", "text", "audio")
HUGE = {  # constructor arguments of the published network
    "out_embed_dim": 1024,
    "vision_embed_dim": 1280,
    "vision_num_blocks": 32,
    "vision_num_heads": 16,
    "text_embed_dim": 1024,
    "text_num_blocks": 24,
    "text_num_heads": 16,
}
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_PIP = "run: pip install imagebind-unofficial einops"


class KaldiFbank(nn.Module):
    """Kaldi's log-mel filter bank of 16 kHz waveforms, batched and differentiable.

    Equals `torchaudio.compliance.kaldi.fbank` with a Hann window of 25 ms every 10 ms, HTK mel
    from 20 Hz to half the rate, pre-emphasis 0.97 and no dither.

    Args:
        sample_rate: in Hz.
        mels: H.
    """

    def __init__(self, sample_rate: int = 16_000, mels: int = 128):
        super().__init__()
        self.size, self.hop = round(0.025 * sample_rate), round(0.010 * sample_rate)
        self.n_fft = 2 ** math.ceil(math.log2(self.size))
        bank, _ = torchaudio.compliance.kaldi.get_mel_banks(
            mels, self.n_fft, float(sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0
        )
        window = torch.hann_window(self.size, periodic=False)
        self.register_buffer("bank", pad(bank, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Map waveforms (B, N) to (B, H, T), T = 1 + (N - 400) // 160."""
        frames = wave.unfold(-1, self.size, self.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        spectrum = torch.fft.rfft((frames - 0.97 * before) * self.window, self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        floor = torch.finfo(torch.float32).eps
        return (power @ self.bank).clamp(min=floor).log().transpose(-1, -2)


class ImageBindEncoder(Alignable):
    """Encoder "imagebind": three 2 s clips at 16 kHz, pictures of 224 x 224, D = 1024.

    Args:
        pretrained: fill the published geometry with the published weights, which are looked for
            (`find_weights`) and never fetched.
        clips: clips of 2 s taken from a recording; 3 as published.
        batch: most clips, texts or pictures in one forward pass, a bound on memory.
        checkpointing: trade time for memory in the backward pass of `embed_audio`.
        geometry: other arguments of the package's `ImageBindModel` than `HUGE`, for networks that
            start at random; not together with `pretrained`.

    Raises:
        EncoderError: the package or the weights are missing, or the weights do not fit.
    """

    name = "imagebind"
    sample_rate = 16_000
    licence = LICENCE
    mean, std = -4.268, 9.138  # of the log-mel patches it was trained on
    frames = 204
    tuning = "heads"  # as MARS-Sep, arXiv 2510.10509
    lora_targets = ("mlp.fc1", "mlp.fc2")

    def __init__(
        self,
        pretrained: bool | None = None,
        clips: int = 3,
        batch: int = 64,
        checkpointing: bool = False,
        **geometry: Any,
    ):
        super().__init__()
        pretrained = not geometry if pretrained is None else pretrained
        if pretrained and geometry:
            raise EncoderError(f"{', '.join(geometry)}: pretrained weights fix the geometry")
        weights = find_weights() if pretrained else None
        self.geometry = HUGE | geometry
        self.clips, self.batch, self.checkpointing = clips, batch, checkpointing
        self.dim = self.geometry["out_embed_dim"]
        self.window = 2 * self.sample_rate
        mels = self.geometry.get("audio_num_mel_bins", 128)
        self.fbank = KaldiFbank(self.sample_rate, mels)
        self.net = _build(self.geometry)
        if weights is not None:
            _fill(self.net, weights)
        self.anchor = FusedAnchor(self.dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(20.0)))  # as it trained on sounds
        self._tokenize: Any = None
        self._fingerprint: str | None = None
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the towers run."""
        return self.fbank.window.device

    def to(self, device: str | torch.device) -> Self:
        """Move all towers to `device` and return the encoder."""
        super().to(device)
        return self

    # Pre-processing

    def patches(self, wave: Tensor, count: int | None = None) -> Tensor:
        """Normalised log-mel patches (B, S, 1, 128, 204) of waveforms (B, N) at 16 kHz.

        Clip k of S starts at k / S of the last possible start, as the package samples them; what
        is shorter than 2 s is tiled.
        """
        count = count or self.clips
        wave = tile(wave, self.window)
        spare = wave.shape[-1] - self.window
        starts = [step * spare // count for step in range(count)]
        clips = torch.stack([wave[:, s : s + self.window] for s in starts], 1)
        patch = self.fbank(clips.flatten(0, 1))[..., : self.frames]
        patch = pad(patch, (0, self.frames - patch.shape[-1]))
        return ((patch - self.mean) / self.std)[:, None].unflatten(0, clips.shape[:2])

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Byte-pair tokens (Q, 77); a longer text is cut, with a warning."""
        if self._tokenize is None:
            part = _package("imagebind.models.multimodal_preprocessors")
            folder = Path(part.__file__).parents[1]
            self._tokenize = part.SimpleTokenizer(str(folder / "bpe/bpe_simple_vocab_16e6.txt.gz"))
        limit = self._tokenize.context_length - 2  # begin and end have a token each
        rows = []
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise EncoderError("a text query is empty; name the sound, such as 'a dog barking'")
            length = len(self._tokenize.encode(text))
            if length > limit:
                warnings.warn(
                    f"the text '{text[:40]}...' has {length} tokens; only the first {limit} are "
                    "used, so shorten it",
                    stacklevel=4,
                )
            rows.append(self._tokenize(text))
        return torch.stack(rows)

    def pictures(self, images: Sequence[Any]) -> Tensor:
        """Resized, centrally cropped, normalised pictures (B, 3, 224, 224)."""
        from torchvision.transforms import v2

        prepare = v2.Compose(
            [
                v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(224),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(PIXEL_MEAN, PIXEL_STD),
            ]
        )
        if isinstance(images, str | Path):
            raise EncoderError("embed_image takes a list of images; put the image in a list")
        rows = []
        for item in images:
            if isinstance(item, Tensor) and (item.ndim != 3 or item.shape[0] != 3):
                raise EncoderError(f"an image tensor must be (3, height, width); got {item.shape}")
            rows.append(prepare(item if isinstance(item, Tensor) else open_image(item)))
        return torch.stack(rows) if rows else torch.zeros(0, 3, 224, 224)

    # Embeddings

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts as (Q, D)."""
        return self.project_text(self.text_features(texts))

    def embed_audio(self, wave: Tensor, sample_rate: int, window_s: float | None = None) -> Tensor:
        """Embed waveforms (B, N) at `sample_rate` Hz as (B, D), differentiable in `wave`.

        The mean over `clips` clips of 2 s, as published; with `window_s`, over as many as cover
        the waveform at that length, each tiled to 2 s where shorter. Raises EncoderError for NaN,
        silence or an empty waveform.
        """
        check_wave(wave, sample_rate)
        wave = resample(wave.to(self.device, torch.float32), sample_rate, self.sample_rate)
        if window_s is None:
            patches = self.patches(wave)
        else:
            length = min(round(window_s * self.sample_rate), wave.shape[-1])
            count = -(-wave.shape[-1] // length)
            spare = (wave.shape[-1] - length) / max(count - 1, 1)
            clips = [wave[:, int(k * spare) :][:, :length] for k in range(count)]
            patches = torch.stack(clips, 1).flatten(0, 1)
            patches = self.patches(patches, 1)[:, 0].unflatten(0, (len(wave), count))
        vectors = self._tower("audio", patches.flatten(0, 1))
        return normalize(vectors.unflatten(0, patches.shape[:2]).mean(1), dim=-1)

    def embed_image(self, images: Sequence[Any]) -> Tensor:
        """Embed B pictures as (B, D)."""
        return self.project_image(*self.image_features(images))

    # Alignment

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The projection head of each modality: a layer norm and a linear map."""
        heads = self.net.modality_heads
        return {"audio": heads["audio"], "text": heads["text"], "image": heads["vision"]}

    @property
    def backbone(self) -> nn.Module:
        """The audio trunk."""
        return self.net.modality_trunks["audio"]

    def audio_patch(self, wave: Tensor) -> Tensor:
        """Normalised log-mel patches (B, 128, 204) of the first 2 s of waveforms (B, N)."""
        return self.patches(wave, 1)[:, 0, 0]

    def embed_patch(self, patch: Tensor) -> Tensor:
        """Embed patches (B, 128, 204) as (B, D)."""
        return self._tower("audio", patch[:, None])

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Trunk features (Q, E) of Q texts at their end; raises EncoderError for an empty one."""
        if isinstance(texts, str):
            raise EncoderError("embed_text takes a list of texts; put the text in a list")
        return self._features("text", self.tokens(texts))

    def project_text(self, features: Tensor) -> Tensor:
        """Map trunk features (Q, E) to (Q, D)."""
        return self._project("text", features)

    @torch.no_grad()
    def image_features(self, images: Sequence[Any]) -> tuple[Tensor]:
        """Trunk features (B, E) of B pictures at their class token."""
        return (self._features("vision", self.pictures(images)),)

    def project_image(self, features: Tensor) -> Tensor:
        """Map trunk features (B, E) to (B, D)."""
        return self._project("vision", features)

    def _tower(self, kind: str, inputs: Tensor) -> Tensor:
        """Unit vectors (B, D), float32, of one modality's inputs."""
        return self._project(kind, self._features(kind, inputs))

    def _features(self, kind: str, inputs: Tensor) -> Tensor:
        """The token that the head reads (B, E), float32, in passes of `batch`."""
        if not len(inputs):
            width = self.geometry.get(f"{kind}_embed_dim", 768)
            return torch.zeros(0, width, device=self.device)
        rows = [self._pass(kind, part.to(self.device)) for part in inputs.split(self.batch)]
        return torch.cat(rows)

    def _pass(self, kind: str, inputs: Tensor) -> Tensor:
        low = half_precision(inputs.device)
        with torch.autocast(inputs.device.type, torch.bfloat16) if low else nullcontext():
            prepared = self.net.modality_preprocessors[kind](**{kind: inputs})
            trunk = dict(prepared["trunk"])
            if self.checkpointing and kind == "audio" and torch.is_grad_enabled():
                trunk["use_checkpoint"] = True
            tokens = self.net.modality_trunks[kind](**trunk)  # (B, tokens, E)
        rows = torch.arange(len(tokens), device=tokens.device)
        return tokens[rows, prepared["head"].get("seq_len", torch.zeros_like(rows))].float()

    def _project(self, kind: str, features: Tensor) -> Tensor:
        """Apply a head, which is a layer norm and a linear map, to one token (B, E)."""
        head = self.net.modality_heads[kind]
        layers = head.proj if kind == "text" else (head[0], head[2])
        for layer in layers:
            features = layer(features)
        return normalize(features, dim=-1)

    # Files

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over names, shapes and values."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(f"{self.name}{self.clips}", self.state_dict())
        return self._fingerprint

    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write `config.json` (with `provenance`) and `model.safetensors`, each atomically."""
        self._fingerprint = None  # alignment may have changed the weights
        config = {"name": self.name, "clips": self.clips, "geometry": self.geometry}
        config |= {"licence": self.licence, "fingerprint": self.fingerprint}
        config["provenance"] = provenance or {}
        save_folder(folder, config, self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder written by `save`, or the published weights file; raises EncoderError."""
        if Path(path).is_file():
            encoder = cls(**HUGE)
            _fill(encoder.net, Path(path))
            return encoder
        config = read_config(path)
        if config.get("name") != cls.name:
            raise EncoderError(f"{path} holds no '{cls.name}' encoder; check the folder")
        try:
            encoder = cls(clips=config["clips"], **config["geometry"])
        except (KeyError, TypeError) as error:
            raise EncoderError(f"{path}/config.json is damaged ({error}); train anew") from None
        load_weights(encoder, path)
        return encoder


def find_weights() -> Path:
    """Path of the published weights: $IMAGEBIND_WEIGHTS, then the cache of torch.hub.

    Raises:
        EncoderError: they are not there; the message says where to get and to put them.
    """
    named = os.environ.get(VARIABLE)
    cache = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    path = Path(named) if named else cache
    if path.is_file():
        return path
    if named:
        raise EncoderError(f"{named}: no such file; {VARIABLE} must name {FILE}")
    raise EncoderError(
        f"ImageBind's weights are not here. They are 4.5 GB, licence {LICENCE}. Download {FILE} "
        f"as the ImageBind repository describes, then put it at {cache}, or name it by {VARIABLE} "
        "or by the option that takes an encoder's weights"
    )


def _fill(net: nn.Module, path: Path) -> None:
    """Load the tensors of our three modalities from the published file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(f"{path} is no weights file ({reason}); download it again") from None
    ours = {key: value for key, value in state.items() if key.split(".")[1] in MODALITIES}
    load_state(net, ours, path)


def _build(geometry: dict[str, Any]) -> nn.Module:
    """The package's network with its vision, text and audio parts alone."""
    model = _package("imagebind.models.imagebind_model").ImageBindModel
    try:
        net = model(**_OTHERS, **geometry)
    except TypeError as error:
        raise EncoderError(f"geometry: {error}; see imagebind's ImageBindModel") from None
    for group in net.children():
        for kind in [name for name in group if name not in MODALITIES]:
            del group[kind]
    return net


# The parts that are thrown away are built as small as the package allows.
_OTHERS = {
    f"{kind}_{name}": value
    for kind in ("depth", "thermal", "imu")
    for name, value in (("embed_dim", 8), ("num_blocks", 1), ("num_heads", 1))
}


def _package(module: str) -> ModuleType:
    """Import a module of the `imagebind` package without running the package's own start."""
    missing = None
    spec = importlib.util.find_spec("imagebind")
    if spec is not None:
        if "imagebind" not in sys.modules:
            shell = ModuleType("imagebind")
            shell.__path__ = list(spec.submodule_search_locations or [])
            shell.__spec__ = spec
            sys.modules["imagebind"] = shell
        try:
            return import_module(module)
        except ImportError as error:
            missing = error.name
    raise EncoderError(f"the {missing or 'imagebind'} package is missing; {_PIP}")
