"""ImageBind: our pre-processing against the package's loaders, and the encoder's contract."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn.functional import normalize

import encoders
from encoders.base import EncoderError
from encoders.imagebind import VARIABLE, ImageBindEncoder, KaldiFbank

pytest.importorskip("einops", reason="needs the imagebind extra")
pytest.importorskip("iopath", reason="needs the imagebind extra")

RATE = 16_000
SMALL = {
    "out_embed_dim": 32,
    "vision_embed_dim": 32,
    "vision_num_blocks": 1,
    "vision_num_heads": 2,
    "text_embed_dim": 32,
    "text_num_blocks": 1,
    "text_num_heads": 2,
    "audio_embed_dim": 32,
    "audio_num_blocks": 2,
    "audio_num_heads": 2,
}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ImageBindEncoder(**SMALL)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_fbank_equals_torchaudio_and_has_its_gradient():
    kaldi = pytest.importorskip("torchaudio").compliance.kaldi
    waves = noise(3, 2 * RATE)
    ours = KaldiFbank()(waves)
    for wave, patch in zip(waves, ours, strict=True):
        theirs = kaldi.fbank(
            (wave - wave.mean())[None],
            htk_compat=True,
            sample_frequency=RATE,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
        )
        torch.testing.assert_close(patch.T, theirs, atol=1e-4, rtol=1e-4)
    waves.requires_grad_()
    KaldiFbank()(waves).sum().backward()
    assert waves.grad.isfinite().all() and waves.grad.abs().max() > 0


@pytest.fixture(scope="module")
def loaders(encoder):
    """The package's own loaders; they ask for two modules that are no longer there."""
    from torchvision.transforms import _functional_tensor

    gone = {
        "torchvision.transforms.functional_tensor": _functional_tensor,
        "pkg_resources": types.ModuleType("pkg_resources"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in gone.items():
            patch.setitem(sys.modules, name, module)
        data = pytest.importorskip("imagebind.data", reason="needs pytorchvideo")
    bpe = Path(data.__file__).parent / "bpe" / "bpe_simple_vocab_16e6.txt.gz"
    data.return_bpe_path = lambda: str(bpe)
    return data


# Under 8 s its clips overlap, and the package shifts the samples they share twice, in place.
@pytest.mark.parametrize("seconds", [2.0, 8.0, 11.3])
def test_audio_patches_equal_the_package_loader(encoder, loaders, tmp_path, monkeypatch, seconds):
    wave = noise(1, round(seconds * RATE), seed=1)
    path = tmp_path / "wave.wav"
    soundfile.write(path, wave[0].numpy(), RATE, subtype="FLOAT")
    # torchaudio.load needs a decoder that is not always there; the file is the same
    monkeypatch.setattr(loaders.torchaudio, "load", lambda _: (wave.clone(), RATE))
    theirs = loaders.load_and_transform_audio_data([str(path)], "cpu")
    torch.testing.assert_close(encoder.patches(wave), theirs, atol=1e-4, rtol=1e-4)


def test_tokens_equal_the_package_loader(encoder, loaders):
    texts = ["A dog barking.", "naïve café; 3 birds' song", "x" * 300]
    with pytest.warns(UserWarning, match="only the first 75 are used"):
        tokens = encoder.tokens([*texts, "dog " * 100])
    assert torch.equal(tokens[:3], loaders.load_and_transform_text(texts, "cpu"))
    assert tokens[3, -1] == tokens.max()  # the end token survives the cut


def test_pictures_equal_the_package_loader(encoder, loaders, tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for name, shape in (("wide.png", (300, 400)), ("tall.jpg", (260, 230)), ("tiny.png", (50, 40))):
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    theirs = loaders.load_and_transform_vision_data(paths, "cpu")
    torch.testing.assert_close(encoder.pictures(paths), theirs, atol=1e-4, rtol=1e-4)


def test_embeddings_equal_the_package_network(encoder, tmp_path):
    wave = noise(2, 5 * RATE)
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    inputs = {
        "audio": encoder.patches(wave),
        "text": encoder.tokens(["a dog", "rain on a roof"]),
        "vision": encoder.pictures([path]),
    }
    with torch.no_grad():
        theirs = encoder.net(inputs)
    ours = {
        "audio": encoder.embed_audio(wave, RATE),
        "text": encoder.embed_text(["a dog", "rain on a roof"]),
        "vision": encoder.embed_image([path]),
    }
    for kind, vectors in ours.items():
        assert vectors.dtype == torch.float32
        # bf16 inside on processors that have it
        cosine = (vectors * normalize(theirs[kind], dim=-1)).sum(-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-3, rtol=0)


def test_audio_is_differentiable_with_and_without_checkpointing(encoder):
    gradients = []
    for checkpointing in (False, True):
        wave = noise(1, 3 * RATE).requires_grad_()
        encoder.checkpointing = checkpointing
        encoder.embed_audio(wave, RATE)[0, 0].backward()
        gradients.append(wave.grad)
    encoder.checkpointing = False
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_memory_bound_does_not_change_the_result(encoder):
    wave = noise(5, 2 * RATE)
    whole = encoder.embed_audio(wave, RATE)
    encoder.batch = 4
    parts = encoder.embed_audio(wave, RATE)
    encoder.batch = 64
    torch.testing.assert_close(whole, parts, atol=2e-3, rtol=0)


@pytest.mark.parametrize("samples", [4_000, 32_000, 200_000])
@pytest.mark.parametrize("window_s", [None, 1.024])
def test_any_length_and_rate(encoder, samples, window_s):
    vectors = encoder.embed_audio(noise(2, samples), 8_000, window_s)
    assert vectors.shape == (2, 32)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize("wave", [torch.zeros(1, 100), torch.full((1, 9), float("nan"))])
def test_silence_and_nan_are_refused(encoder, wave):
    with pytest.raises(EncoderError, match=r"silent|NaN"):
        encoder.embed_audio(wave, RATE)


def test_save_and_load(encoder, tmp_path):
    encoder.save(tmp_path)
    again = encoders.load(tmp_path)
    assert again.fingerprint == encoder.fingerprint
    wave = noise(1, RATE)
    torch.testing.assert_close(again.embed_audio(wave, RATE), encoder.embed_audio(wave, RATE))


def test_weights_of_another_geometry_name_the_tensor(encoder, tmp_path):
    from encoders.checkpoint import load_weights

    encoder.save(tmp_path)
    other = ImageBindEncoder(**SMALL | {"audio_embed_dim": 16})
    with pytest.raises(EncoderError, match=r"tensor net\.modality_preprocessors\.audio\S+ is \("):
        load_weights(other, tmp_path)


def test_published_file_with_other_modalities_and_pickles(encoder, tmp_path, monkeypatch):
    from encoders import imagebind

    monkeypatch.setattr(imagebind, "HUGE", SMALL)
    state = encoder.net.state_dict() | {"modality_heads.imu.3.weight": torch.zeros(3)}
    path = tmp_path / "imagebind_huge.pth"
    torch.save(state, path)
    monkeypatch.setenv(VARIABLE, str(path))
    assert encoders.get("imagebind").fingerprint == encoder.fingerprint
    assert encoders.get("imagebind", weights=path).fingerprint == encoder.fingerprint
    torch.save(np.random.default_rng(0), path)  # an object that would have to be unpickled
    with pytest.raises(EncoderError, match="no weights file"):
        encoders.get("imagebind")


def test_missing_weights_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(EncoderError, match=r"4\.5 GB, licence CC BY-NC-SA") as caught:
        encoders.get("imagebind")
    assert str(tmp_path) in str(caught.value) and VARIABLE in str(caught.value)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.pth"))
    with pytest.raises(EncoderError, match=r"absent\.pth: no such file"):
        encoders.get("imagebind")


def test_unknown_geometry_is_named():
    with pytest.raises(EncoderError, match="audio_wings"):
        ImageBindEncoder(audio_wings=2)
