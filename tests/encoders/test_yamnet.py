"""YAMNet as an encoder, with random weights; its real ones are in the slow set."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

import encoders
from encoders.base import EncoderError
from encoders.precision import convolve
from encoders.yamnet import CLASSES, NAMES, YAMNet, YamnetEncoder, mel_bank


@pytest.fixture(scope="module")
def encoder() -> YamnetEncoder:
    torch.manual_seed(0)
    names = ["Dog", "Rain", "Violin, fiddle", *(f"Machine {k}" for k in range(CLASSES - 3))]
    return YamnetEncoder(YAMNet().state_dict(), names)


def test_bands_are_triangles_in_mel():
    bank = mel_bank()
    mel = lambda hz: 1127 * math.log1p(hz / 700)  # noqa: E731
    step = (mel(7500) - mel(125)) / 65
    for band, k in ((10, 20), (63, 230)):
        centre = mel(125) + (band + 1) * step
        wanted = max(0.0, 1 - abs(mel(31.25 * k) - centre) / step)
        assert bank[k, band].item() == pytest.approx(wanted, abs=1e-5)
    assert bank.shape == (257, 64) and not bank[:4].any()  # nothing below 125 Hz
    assert bank[5:240].any(1).all()


def test_patches_are_of_a_second_every_half_second(encoder):
    wave = torch.randn(1, encoder.window + 48 * 160 + 100)
    patches = encoder.patches(wave)
    assert patches.shape == (1, 2, 64, 96)
    frame = wave[0, (48 + 5) * 160 :][:400] * torch.hann_window(400)
    wanted = torch.log(torch.fft.rfft(frame, 512).abs() @ mel_bank() + 1e-3)
    torch.testing.assert_close(patches[0, 1, :, 5], wanted, atol=1e-4, rtol=1e-4)


def test_a_sound_is_its_classes_probabilities(encoder):
    wave = torch.randn(3, 40_000)
    found = encoder.embed_audio(wave, 16_000)
    logits = convolve(encoder.net, encoder.patches(wave[2:])[0, :, None]).float()
    wanted = logits.sigmoid().mean(0)
    torch.testing.assert_close(found[2], wanted / wanted.norm())
    assert encoder.embed_audio(wave[:, :2000], 8_000).shape == (3, CLASSES)  # tiled


def test_a_text_is_the_classes_that_it_may_mean(encoder):
    found = encoder.embed_text(["a dog barking", "playing the violin"])
    assert found.argmax(-1).tolist() == [0, 2]
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))


def test_what_it_cannot_do_is_said(encoder, tmp_path):
    for fault, said in (
        (lambda: encoder.embed_image(["a.png"]), "sees no pictures"),
        (lambda: encoder.save(tmp_path), "is not trained"),
        (lambda: encoder.embed_text("dog"), "takes a list"),
        (lambda: encoder.embed_audio(torch.zeros(1, 9000), 16_000), "silent"),
        (lambda: encoders.get("yamnet"), "takes a file of weights; python egs"),
        (lambda: encoders.get("yamnet", tmp_path / "none"), "cannot be read"),
    ):
        with pytest.raises(EncoderError, match=said):
            fault()
    state = YAMNet().state_dict()
    save_file(state, tmp_path / "unnamed.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {NAMES: json.dumps([])})
    for name in ("unnamed", "other"):
        with pytest.raises(EncoderError, match="does not hold YAMNet"):
            encoders.get("yamnet", tmp_path / f"{name}.safetensors")
